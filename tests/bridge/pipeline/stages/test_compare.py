"""A/B: the picture without what the stages add, while their controls keep their values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from bridge.pipeline.stages.compare import end_when_changed, plain_values
from bridge.pipeline.stages.table import STAGES
from bridge.table import TABLE, table_of
from bridge.video.synthetic.null import NullSink
from engine.control import live
from engine.frame import Frame
from tests.support import toy_transport

GREY, LIGHT = 100, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LightControls:
    """How much lighter the picture becomes."""

    light: float = live(0.0, "/light", "Lighter.", group="Video", label="Light", low=0.0, high=100.0)


class Light(Stage):
    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        light = int(context.controls.of(LightControls).light)
        return (Frame(frame.pixels + np.uint8(light), captured_ns=frame.captured_ns, seq=frame.seq),)


def soon(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_the_stages_of_this_program_that_take_part_are_plain_at_these_values() -> None:
    assert plain_values(STAGES) == {"reproject": 0.0, "detail": 0.0}
    assert all(TABLE.by_name[name].default == value for name, value in plain_values(STAGES).items())


@pytest.mark.parametrize("place", [Place.RESTYLED, Place.TICK])
def test_on_is_plain_and_off_is_as_before_without_a_control_being_changed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        sent.append(int(frame.pixels[0, 0, 0]))

    monkeypatch.setattr(NullSink, "send", record)
    rows = (*STAGES, StageRow("light", place, lambda width, height: Light(), LightControls, plain={"light": 0.0}))
    settings = identity(f"shelf:{GREY}", "null:", 64, 48) | {"output.fps": 30.0}
    with toy_transport.registered(), App(load(None, settings), stages=rows) as app:
        store = app.store
        store.set_many({"light": LIGHT, "reproject": 0.5, "detail": 0.7})
        soon(lambda: sent[-1:] == [GREY + LIGHT], "the light")
        for on in (True, False, True):
            store.set("compare", on)
            soon(lambda on=on: sent[-1] == GREY + (0 if on else LIGHT), f"compare {on}")
            kept = [store.snapshot.value(name) for name in ("light", "reproject", "detail")]
            assert kept == [LIGHT, 0.5, 0.7]
        store.set("light", LIGHT + 1)
        soon(lambda: sent[-1] == GREY + LIGHT + 1, "a hand on the fader is seen at once")
        assert not store.snapshot.value("compare")


def test_only_another_value_of_what_is_compared_ends_it() -> None:
    store = ControlStore(TABLE)
    told: list[bool] = []
    unlisten = end_when_changed(store, STAGES)
    store.listen(lambda name, value, origin: told.append(value) if name == "compare" else None)
    store.set_many({"reproject": 0.5, "detail": 0.25})
    store.set("compare", True)
    store.set_many({"strength": 0.1, "reproject": 0.5, "detail": 0.25})
    assert store.snapshot.value("compare"), "neither another control nor the same values again, as a recall sets them"
    store.set("detail", 0.3)
    assert not store.snapshot.value("compare") and told == [True, False], "everybody is told"
    assert (store.snapshot.value("reproject"), store.snapshot.value("detail")) == (0.5, 0.3)
    unlisten()
    store.set("compare", True)
    store.set("detail", 0.4)
    assert store.snapshot.value("compare"), "nobody watches any more"


def test_a_snapshot_that_is_stored_meanwhile_holds_what_the_faders_say(tmp_path: Path) -> None:
    store = ControlStore(table_of(STAGES))
    store.set_many({"reproject": 0.5, "detail": 0.25, "compare": True})
    kept = Snapshots(store, tmp_path / "snapshots.json", lambda topic, reason: None)
    kept.save(1)
    stored = kept.all()[1]
    assert (stored["reproject"], stored["detail"]) == (0.5, 0.25) and "compare" not in stored
