"""A saved stream is continued only with the settings on which its state depends; the error names those that differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.controls import Controls
from engine.errors import ModelError
from engine.frame import Frame
from engine.models import registry
from engine.opening import state_settings
from engine.session import Session
from engine.stream import saved_state
from engine.stream.kv_cache import Rule

TINY = Config(model="wan21-tiny", width=32, height=32, device="cpu", dtype="float32", cache="honest")
CONTROLS = Controls(prompt_1="a forest", prompt_seconds=0.0, strength=0.8, steps=2)
LATE = dataclasses.replace(CONTROLS, prompt_1="the sea", prompt_seconds=1.0)


def play(session: Session, numbers: range, controls: Controls = CONTROLS) -> list[Frame]:
    done = []
    for n in numbers:
        pixels = np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        session.feed(Frame(pixels, pts_ns=n * 40_000_000, seq=n))
        if session.ready:
            done += session.step(controls)
    return done


def changed(config: Config, **settings: object) -> Config:
    return Config(**(config.model_dump() | settings))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream whose prompt rests."""
    path = tmp_path_factory.mktemp("saved") / "stream"
    with Session.open(TINY) as session:
        play(session, range(21))
        session.save(path)
    return path


def refused(config: Config, path: Path) -> str:
    """The message with which a session with another setting refuses the stream."""
    with Session.open(config) as session, pytest.raises(ModelError, match="does not fit this session") as error:
        session.resume(path)
    assert "settings of the saved stream" in error.value.remedy
    return error.value.message


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"width": 64}, "width is 32 in the file and 64 here"),
        ({"height": 64}, "height is 32 in the file and 64 here"),
        ({"batch": False}, "rows of the stream batch is 4 in the file and 1 here"),
        ({"max_steps": 2}, "rows of the stream batch is 4 in the file and 2 here"),
        ({"cache": "reference"}, "cache is honest in the file and reference here"),
        ({"cache": "adaptive"}, "cache is honest in the file and adaptive here"),
        ({"dtype": "bfloat16"}, "dtype is float32 in the file and bfloat16 here"),
        ({"weights_dtype": "float8"}, "weights_dtype is auto in the file and float8 here"),
        ({"vae": "tiny"}, "vae is full in the file and tiny here"),
        ({"noise": "paper"}, "noise is released in the file and paper here"),
    ],
)
def test_another_setting_is_refused_and_named(settings: dict[str, object], named: str, saved: Path) -> None:
    assert refused(changed(TINY, **settings), saved) == f"The saved stream does not fit this session: {named}."


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("slots", 5, "slots of the cache is 6 in the file and 5 here"),
        ("sinks", 2, "sinks of the cache is 3 in the file and 2 here"),
    ],
)
def test_a_row_with_another_cache_is_refused_and_named(
    field: str, value: int, named: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = registry.get(TINY.model)
    cache = dataclasses.replace(row.cache, **{field: value})  # type: ignore[arg-type]
    monkeypatch.setitem(registry.REGISTRY, row.name, dataclasses.replace(row, cache=cache))
    assert named in refused(TINY, saved)


def test_a_row_with_other_blocks_is_refused_and_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = registry.get(TINY.model)
    monkeypatch.setitem(registry.REGISTRY, row.name, dataclasses.replace(row, first_latents=3, frames_per_block=3))
    with Session.open(TINY) as session, pytest.raises(ModelError, match="frames per block is 1 in the file and 3 here"):
        session.resume(saved)


def test_another_kind_of_device_is_refused_and_named() -> None:
    def settings(device: str) -> dict[str, saved_state.Setting]:
        row, kind = registry.get(TINY.model), torch.device(device)
        return state_settings(TINY, row, kind, torch.float32, rule=Rule.HONEST, vae="full", max_steps=4)

    saved_state.compare(settings("cuda:1"), settings("cuda:0"))
    with pytest.raises(ModelError, match="device is cuda in the file and cpu here"):
        saved_state.compare(settings("cpu"), settings("cuda:0"))


def test_ember_has_a_tensor_of_noise_for_each_step_even_without_the_batch(tmp_path: Path) -> None:
    ember = Config(model="ember", width=32, height=32, device="cpu", batch=False)
    with Session.open(ember) as session:
        session.save(tmp_path / "stream")
    assert "max_steps is 4 in the file and 3 here" in refused(changed(ember, max_steps=3), tmp_path / "stream")


def test_a_session_that_refuses_a_stream_continues_its_own(saved: Path) -> None:
    config = changed(TINY, cache="reference")
    with Session.open(config) as one, Session.open(config) as other:
        play(one, range(9))
        play(other, range(9))
        with pytest.raises(ModelError):
            one.resume(saved)
        frames = zip(play(one, range(9, 21)), play(other, range(9, 21)), strict=True)
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in frames)


def test_settings_on_which_the_state_does_not_depend_may_differ(saved: Path) -> None:
    config = changed(TINY, travel="linear", text_weights="float8", threads=torch.get_num_threads())
    with Session.open(TINY) as same, Session.open(config) as other:
        same.resume(saved)
        other.resume(saved)
        wanted, found = play(same, range(21, 33)), play(other, range(21, 33))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(wanted, found, strict=True))


def test_the_largest_number_of_steps_may_differ_where_no_tensor_depends_on_it(tmp_path: Path) -> None:
    alone = changed(TINY, batch=False)
    with Session.open(alone) as before, Session.open(changed(alone, max_steps=2)) as after:
        play(before, range(21))
        before.save(tmp_path / "stream")
        after.resume(tmp_path / "stream")
        wanted, found = play(before, range(21, 33)), play(after, range(21, 33))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize(
    "controls",
    [LATE, dataclasses.replace(CONTROLS, prompt_2="the sea", weight_1=0.5, weight_2=0.5)],
    ids=["between two prompts", "a blend of two prompts"],
)
def test_the_travel_must_be_the_same_while_prompts_are_interpolated(controls: Controls, tmp_path: Path) -> None:
    with Session.open(TINY) as session:
        play(session, range(21))
        play(session, range(21, 29), controls)
        session.save(tmp_path / "stream")
        session.resume(tmp_path / "stream")
    named = refused(changed(TINY, travel="linear"), tmp_path / "stream")
    assert named == "The saved stream does not fit this session: travel is slerp in the file and linear here."
