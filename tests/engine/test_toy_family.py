"""A family of models is one package: it is streamed, captured, quantised, split over two processes, and saved.

`tests/support/toy_family` is that package. No file of the engine names it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config
from engine.controls import Controls
from engine.errors import ModelError
from engine.frame import Frame
from engine.models import registry
from engine.session import Session

FAMILY = "tests.support.toy_family"
ROOT = Path(__file__).parents[2]


def config(**settings: object) -> Config:
    chosen = {"model": "two-convolutions", "width": 48, "height": 32, "device": "cpu", "families": (FAMILY,)}
    return Config(**(chosen | settings))  # type: ignore[arg-type]


def play(session: Session, prompts: tuple[str, str] = ("one", "another thing"), start: int = 0) -> list[Frame]:
    """Twenty frames with a change of prompt, of steps and of strength."""
    rng, made = np.random.default_rng(start), []
    for n in range(start, start + 20):
        pixels = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
        session.feed(Frame(pixels, pts_ns=n * 33_333_333, seq=n))
        turn = n % 20
        strength, steps = (0.7 if turn < 15 else 0.9), 2 + turn // 12
        controls = Controls(prompt_1=prompts[turn > 9], prompt_seconds=0.0, strength=strength, steps=steps)
        if session.ready:
            made += session.step(controls)
    return made + session.flush()


def pixels(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.pixels for frame in frames]).astype(int)


@pytest.fixture(scope="module")
def plain() -> list[Frame]:
    with Session.open(config()) as session:
        return play(session)


def test_it_streams_and_obeys(plain: list[Frame]) -> None:
    assert [frame.seq for frame in plain] == list(range(20))
    with Session.open(config()) as session:
        other = play(session, ("one", "one"))
    assert np.array_equal(pixels(plain)[:9], pixels(other)[:9]), "the same until the prompt changes"
    assert not np.array_equal(pixels(plain)[10:], pixels(other)[10:])


def test_captured_it_gives_the_same(plain: list[Frame]) -> None:
    with Session.open(config(compile="graphs")) as session:
        assert session.health.trouble == ""
        assert np.array_equal(pixels(play(session)), pixels(plain))


def test_in_8_bits_it_stays_near(plain: list[Frame]) -> None:
    with Session.open(config(weights_dtype="float8")) as session:
        off = np.abs(pixels(play(session)) - pixels(plain))
    assert 0 < off.mean() < 2.0


@pytest.mark.skipif(sys.platform == "win32", reason="several GPUs are refused on Windows")
def test_on_two_processes_it_gives_the_same(plain: list[Frame]) -> None:
    with Session.open(config(devices=("cpu", "cpu"))) as session:
        found = play(session)
    assert [frame.seq for frame in found] == [frame.seq for frame in plain]
    assert np.abs(pixels(found) - pixels(plain)).max() <= 1


def test_saved_and_resumed_it_goes_on(tmp_path: Path) -> None:
    with Session.open(config()) as whole:
        play(whole)
        wanted = play(whole, start=20)
    with Session.open(config()) as first:
        play(first)
        first.save(tmp_path / "stream")
    with Session.open(config()) as second:
        second.resume(tmp_path / "stream")
        assert np.array_equal(pixels(play(second, start=20)), pixels(wanted))


def test_nothing_of_the_engine_names_it() -> None:
    command = ["git", "grep", "-l", "toy_family\\|two-convolutions", "engine", "bridge"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert found.stdout == b""


def test_what_is_no_family_is_refused() -> None:
    with pytest.raises(ModelError, match="no_such_family is not a family"):
        registry.register("tests.no_such_family")
