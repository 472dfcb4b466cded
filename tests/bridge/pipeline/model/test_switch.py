"""The whole bridge while its model and size are changed: what the audience sees, what controls and state say."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.bench.peers import SleepProbe
from bridge.config_file import load
from bridge.control.origin import Origin, Trust
from bridge.control.osc.packet import build
from bridge.control.stored.content import stored_names
from bridge.process.engine.auto_size import ladder
from bridge.process.engine.choice import EngineControls, size_text
from engine.errors import ControlError
from engine.frame import Frame

pytestmark = pytest.mark.alone

MODEL, OTHER = (64, 48), (96, 64)
FPS = 30.0
GAP_MS = 100.0
"""How much longer than a picture's time the output may be silent."""

PAGE = Origin("web:1", Trust.MACHINE)
TOY = "two-convolutions"


def until(happened: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 120.0
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def app(folder: Path, **settings: Any) -> App:
    chosen = {
        "output.fps": FPS,
        "engine.families": ["tests.support.toy_family"],
        "engine.device": "cpu",
        "engine.threads": 1,
        "engine.warmup": False,
        "engine.weights_dir": str(folder / "models"),
        "storage.state_dir": str(folder / "state"),
    }
    return App(load(None, identity("pattern:bars", "null:", *MODEL) | chosen | settings))


def told(bridge: App, name: str) -> Any:
    return bridge.telemetry.snapshot().get(name)


def runs(bridge: App, model: str, size: tuple[int, int]) -> None:
    """Wait until this model's pictures reach the output."""

    def now() -> bool:
        right = told(bridge, "model") == model and told(bridge, "model_size") == size_text(size)
        return right and told(bridge, "state") == "running" and bridge.publisher.restyled.any

    until(now, f"{model} at {size} runs: {bridge.telemetry.snapshot()}")


def shapes(frames: list[Frame]) -> set[tuple[int, int]]:
    return {(frame.width, frame.height) for frame in frames}


def test_the_size_changes_without_a_gap_and_the_output_follows_it(sent: list[Frame], tmp_path: Path) -> None:
    with SleepProbe() as probe, app(tmp_path, **{"controls.output_size": "model"}) as bridge:
        runs(bridge, "identity", MODEL)
        sent.clear()
        bridge.publisher.main.longest_gap_ms = 0.0
        probe.take()
        bridge.store.set("engine_size", size_text(OTHER), PAGE)
        loading = ("loading", "Loading identity 96x64")
        until(lambda: (told(bridge, "state"), told(bridge, "message")) == loading, "it loads")
        runs(bridge, "identity", OTHER)
        until(lambda: sent[-1].pixels.shape[:2] == (OTHER[1], OTHER[0]), "the output at the new size")
        gap_ms, asleep_ms = bridge.publisher.main.longest_gap_ms, probe.take()
        assert gap_ms < 1000.0 / FPS + GAP_MS + asleep_ms, f"{gap_ms:.0f} ms; {asleep_ms:.0f} were slept"
        assert shapes(sent) == {MODEL, OTHER}
        first = next(n for n, frame in enumerate(sent) if frame.width == OTHER[0])
        assert shapes(sent[first:]) == {OTHER}, "it changes once"
        assert all(frame.pixels.any() for frame in sent), "the input fills the gap"


def test_an_output_of_its_own_size_keeps_it_and_shows_the_input_meanwhile(sent: list[Frame], tmp_path: Path) -> None:
    settings = {"controls.output_size": "320x240", "controls.reproject": 1.0}
    with SleepProbe() as probe, app(tmp_path, **settings) as bridge:
        runs(bridge, "identity", MODEL)
        sent.clear()
        errors: list[tuple[str, str]] = []
        bridge.telemetry.listen_errors(lambda *error: errors.append(error))
        assert bridge.osc is not None
        bridge.publisher.main.longest_gap_ms = 0.0
        probe.take()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk:
            for name, value in (("model", TOY), ("size", size_text(OTHER))):
                desk.sendto(build(f"/tidecast/engine/{name}", (value,)), bridge.osc.address)
        until(lambda: not bridge.publisher.restyled.any, "the input")
        seen = len(sent)
        until(lambda: len(sent) > seen + 5, "pictures of the input")
        newest = bridge.capture.history.newest
        assert newest is not None and shapes([newest]) == {(320, 240)}
        held = sent[-1].pixels.astype(np.int32)
        assert np.abs(held[:100] - newest.pixels.astype(np.int32)[:100]).mean() < 1.0, "the upper half stands still"
        runs(bridge, TOY, OTHER)
        seen = len(sent)
        until(lambda: len(sent) > seen + 10, "restyled pictures")
        assert shapes(sent) == {(320, 240)}
        assert not [text for _, text in errors if "stage" in text or "failed" in text], errors
        gap_ms, asleep_ms = bridge.publisher.main.longest_gap_ms, probe.take()
        assert gap_ms < 1000.0 / FPS + GAP_MS + asleep_ms, f"{gap_ms:.0f} ms; {asleep_ms:.0f} were slept"


def test_what_cannot_be_started_comes_back_and_is_said_beside_the_control(sent: list[Frame], tmp_path: Path) -> None:
    with SleepProbe() as probe, app(tmp_path) as bridge:
        runs(bridge, "identity", MODEL)
        errors: list[tuple[str, str]] = []
        bridge.telemetry.listen_errors(lambda *error: errors.append(error))
        bridge.publisher.main.longest_gap_ms = 0.0
        probe.take()
        bridge.store.set("engine_model", "wan21-1.3b", PAGE)
        until(lambda: bridge.store.snapshot.of(EngineControls).engine_model == "identity", "the control goes back")
        runs(bridge, "identity", MODEL)
        gap_ms, asleep_ms = bridge.publisher.main.longest_gap_ms, probe.take()
        assert gap_ms < 1000.0 / FPS + GAP_MS + asleep_ms
        ((address, text),) = errors
        assert address == "/tidecast/engine/model"
        assert text.startswith("wan21-1.3b 64x48 could not be started, so identity 64x48 goes on: ")
        assert "tidecast models pull wan21-1.3b" in text
        assert told(bridge, "message") == text, "it is still said while the show runs"
        assert shapes(sent) == {MODEL}, "the output never had another size"


def test_controls_are_kept_and_steps_that_are_too_many_are_lowered(sent: list[Frame], tmp_path: Path) -> None:
    with app(tmp_path) as bridge:
        runs(bridge, "identity", MODEL)
        wanted = {"prompt_1": "a red sea", "strength": 0.35, "steps": 4, "motion": 0.25, "mix": 0.9}
        bridge.store.set_many(wanted, PAGE)
        errors: list[tuple[str, str]] = []
        bridge.telemetry.listen_errors(lambda *error: errors.append(error))
        bridge.store.set("engine_model", TOY, PAGE)
        runs(bridge, TOY, MODEL)
        kept = {name: bridge.store.snapshot.value(name) for name in wanted}
        assert kept == wanted | {"steps": 3}
        said = f"{TOY} takes 3 steps at most, so 4 became 3."
        assert errors == [("/tidecast/steps", said)] and told(bridge, "message") == said
        until(lambda: told(bridge, "prompt") == "a red sea" and told(bridge, "steps") in (1, 2, 3), "both in force")


def test_the_last_of_rapid_choices_is_the_one_that_runs(sent: list[Frame], tmp_path: Path) -> None:
    with app(tmp_path) as bridge:
        runs(bridge, "identity", MODEL)
        for number in range(30):
            bridge.store.set_many(
                {"engine_model": ("ember", TOY, "identity")[number % 3], "engine_size": f"{64 + 16 * number}x48"}, PAGE
            )
            time.sleep(0.02)
        bridge.store.set_many({"engine_model": "identity", "engine_size": size_text(OTHER)}, PAGE)
        runs(bridge, "identity", OTHER)
        assert bridge.store.snapshot.of(EngineControls).choice.size == OTHER
        assert not bridge.failure


def test_a_refused_value_changes_nothing(tmp_path: Path) -> None:
    with app(tmp_path) as bridge:
        runs(bridge, "identity", MODEL)
        before, stranger = bridge.supervisor.process_id, Origin("osc:far", Trust.NETWORK)
        for name, value in (("engine_size", "300x200"), ("engine_model", "/etc/passwd"), ("engine_model", "no-such")):
            with pytest.raises(ControlError):
                bridge.store.set(name, value, stranger)
        assert bridge.supervisor.process_id == before
        assert (bridge.store.snapshot.value("engine_model"), bridge.store.snapshot.value("engine_size")) == (
            "identity",
            "64x48",
        )


def test_snapshots_hold_neither() -> None:
    with_everything = stored_names(App(load(None, {"web.enabled": False})).store.table, ("input", "seed", "latency"))
    assert "prompt_1" in with_everything
    assert not {"engine_model", "engine_size"} & set(with_everything)


def test_the_choice_survives_a_stop_and_a_start(tmp_path: Path) -> None:
    bridge = app(tmp_path)
    with bridge:
        runs(bridge, "identity", MODEL)
        bridge.store.set("engine_size", size_text(OTHER), PAGE)
        runs(bridge, "identity", OTHER)
    with bridge:
        runs(bridge, "identity", OTHER)


def test_auto_takes_the_largest_size_of_the_outputs_shape_where_nothing_is_computed(tmp_path: Path) -> None:
    with app(tmp_path, **{"engine.size": "auto", "controls.output_size": "640x480"}) as bridge:
        largest = ladder(640 / 480)[-1]
        runs(bridge, "identity", largest)
        assert bridge.store.snapshot.value("engine_size") == "auto"
        said = f"{size_text(largest)} is the largest size that holds 30 pictures a second and 400 ms with 2 steps."
        assert told(bridge, "message").startswith(said)
        assert bridge.switch.trial().fps == FPS
