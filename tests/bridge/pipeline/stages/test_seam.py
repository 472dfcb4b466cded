"""A stage of one's own is a module and a row: both are in this test, and no file of the program changes."""

from __future__ import annotations

import dataclasses
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.osc.packet import build
from bridge.control.values import Snapshot
from bridge.pipeline.alpha.controls import AlphaControls
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.controls import MaskControls
from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from bridge.pipeline.stages.chain import RETRY_NS, StageChain
from bridge.pipeline.stages.enlarge_controls import EnlargeControls
from bridge.pipeline.stages.mix import Mix
from bridge.pipeline.stages.mix_controls import MixControls
from bridge.pipeline.stages.reproject_controls import ReprojectControls
from bridge.pipeline.stages.table import STAGES
from bridge.video.synthetic.null import NullSink
from engine.control import Kind, Reading, live
from engine.frame import Frame

MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BetweenControls:
    """The controls of the stage of this test."""

    between: float = live(0.5, "/between", "Share of the later neighbour.", group="Toy", label="Between", low=0, high=1)


class Between(Stage):
    """Doubles the rate: before every frame a blend of it with the one before."""

    def __init__(self) -> None:
        self._last: Frame | None = None
        self.made = 0
        self.share = -1.0

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        self.share = context.controls.of(BetweenControls).between
        last, self._last = self._last, frame
        if last is None:
            return (frame,)
        self.made += 1
        half = dataclasses.replace(
            frame,
            pixels=(last.pixels * (1.0 - self.share) + frame.pixels * self.share).astype(np.uint8),
            pts_ns=(last.pts_ns + frame.pts_ns) // 2,
            captured_ns=(last.captured_ns + frame.captured_ns) // 2,
            metadata={**frame.metadata, "between": f"{self.share:g}"},
        )
        return (half, frame)

    def readings(self) -> Mapping[str, Any]:
        return {"halves": self.made}

    def reset(self) -> None:
        self._last = None


HALVES = Reading("halves", "/status/halves", Kind.INT, "", "Frames that the toy made.")
TOY = StageRow("between", Place.RESTYLED, lambda width, height: Between(), BetweenControls, (HALVES,))


def soon(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_row_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, Mapping[str, str]]] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        sent.append((frame.captured_ns, dict(metadata or {})))

    monkeypatch.setattr(NullSink, "send", record)
    chosen = {"output.fps": 60.0, "osc.enabled": True, "osc.host": "127.0.0.1", "osc.port": 0}
    config = load(None, identity("pattern:bars", "null:", 64, 48) | chosen)
    with App(config, stages=(*STAGES, TOY)) as app, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as desk:
        assert app.osc is not None
        desk.sendto(build("/tidecast/between", (0.25,)), app.osc.address)
        soon(lambda: app.store.snapshot.of(BetweenControls).between == 0.25, "the control is set over OSC")
        soon(lambda: any(said.get("between") == "0.25" for _, said in sent), "the frames obey it")
        soon(lambda: app.telemetry.snapshot().get("halves", 0) > 10, "its reading arrives")
        assert app.telemetry.snapshot()["cost_between"] > 0.0
        sent.clear()
        time.sleep(2.0)
        seen = list(sent)
    times = [captured for captured, _ in seen]
    assert times == sorted(times)
    assert len(set(times)) > 0.8 * 2.0 * 60, "30 frames a second became 60"
    made = [said for _, said in seen if "between" in said]
    assert 0.35 < len(made) / len(seen) < 0.65, "every other picture is the stage's"
    assert all(said["strength"] == "0.6" for said in made), "each carries the controls it was made with"


class Half(Stage):
    """Halves the rate: every other frame is left out."""

    def __init__(self) -> None:
        self._seen = 0

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        self._seen += 1
        return (frame,) if self._seen % 2 else ()


@pytest.mark.parametrize("place", [Place.INPUT, Place.RESTYLED])
def test_a_stage_that_gives_fewer_frames_lowers_the_rate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        if "strength" in (metadata or {}):  # restyled: until the engine is up, the input is shown
            sent.append(frame.captured_ns)

    monkeypatch.setattr(NullSink, "send", record)
    config = load(None, identity("pattern:bars", "null:", 64, 48) | {"output.fps": 30.0})
    half = StageRow("half", place, lambda width, height: Half())
    with App(config, stages=(*STAGES, half)):
        soon(lambda: len(set(sent)) > 10, "restyled frames are sent")
        sent.clear()
        time.sleep(2.0)
        seen = list(sent)
    assert seen == sorted(seen)
    shown = sorted(set(seen))
    gaps = [(after - before) / MS for before, after in pairwise(shown)]
    assert statistics.median(gaps) > 50.0, "of pictures 33 ms apart every other one is left"
    assert len(seen) > 1.3 * len(shown), "the output keeps its own rate: pictures are repeated"


def test_a_stage_that_gives_no_frame_ends_the_chain_for_it() -> None:
    half, doubled = Half(), Between()
    rows = [StageRow(name, Place.TICK, lambda w, h, s=stage: s) for name, stage in (("half", half), ("twice", doubled))]
    chain = StageChain(rows, Place.TICK, 4, 4, lambda topic, text: pytest.fail(text))
    history, snapshot = FrameHistory(), Snapshot([BetweenControls()])
    given = [chain.run(frame(n, n), Context(n, history, snapshot, wet=True, canvas=(4, 4))) for n in range(4)]
    assert [[made.captured_ns for made in frames] for frames in given] == [[0], [], [1, 2], []]


def frame(value: int, captured_ns: int) -> Frame:
    return Frame(np.full((4, 4, 3), value, np.uint8), pts_ns=captured_ns, captured_ns=captured_ns)


def context(history: FrameHistory, now_ns: int = 0, **mix: float) -> Context:
    stages = (ReprojectControls(), EnlargeControls(), MaskControls(), AlphaControls())
    controls = Snapshot([MixControls(**mix), *stages])
    return Context(now_ns, history, controls, wet=True, canvas=(4, 4))


def test_a_stage_that_fails_is_bypassed_and_reported_once() -> None:
    class Broken(Stage):
        tries = 0

        def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
            self.tries += 1
            raise RuntimeError("no")

        def readings(self) -> Mapping[str, Any]:
            return {"undeclared": 1}

    broken, told = Broken(), list[tuple[str, str]]()
    rows = (StageRow("broken", Place.TICK, lambda w, h: broken), *STAGES)
    chain = StageChain(rows, Place.TICK, 4, 4, lambda topic, text: told.append((topic, text)))
    history = FrameHistory()
    for n in range(100):
        picture = frame(n, n)
        assert chain.run(picture, context(history, n * RETRY_NS // 50)) == [picture]
    assert broken.tries == 2, "it is tried again after a while"
    assert [topic for topic, _ in told] == ["broken"] and "RuntimeError: no" in told[0][1]
    assert "undeclared" not in chain.readings() and {"cost_broken", "cost_mix"} <= set(chain.readings())


def test_for_another_size_of_the_model_stages_are_made_anew_and_one_that_cannot_be_is_kept() -> None:
    class Sized(Stage):
        def __init__(self, width: int, height: int) -> None:
            if width > 8:
                raise RuntimeError("too wide")
            self.size = (width, height)

        def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
            seen.append(self.size)
            return (frame,)

    seen, told = list[tuple[int, int]](), list[tuple[str, str]]()
    chain = StageChain(
        (StageRow("sized", Place.TICK, Sized),), Place.TICK, 4, 4, lambda topic, text: told.append((topic, text))
    )
    history = FrameHistory()
    for size in ((4, 4), (8, 6), (16, 6)):
        if size != (4, 4):
            chain.remake(*size)
        chain.run(frame(0, 0), context(history))
    assert seen == [(4, 4), (8, 6), (8, 6)]
    assert [topic for topic, _ in told] == ["sized"] and "too wide" in told[0][1]


def test_the_mix_finds_its_input_by_time() -> None:
    history = FrameHistory()
    for n in range(4):
        history.add(frame(10 * n, n * 40 * MS))
    wet = frame(200, 80 * MS)
    (blend,) = Mix().process(wet, context(history, mix=0.5))
    assert blend.pixels[0, 0, 0] == 110, "the input of the same time"
    between = frame(200, 95 * MS)
    assert Mix().process(between, context(history, mix=0.0))[0].captured_ns == 80 * MS, "the nearest in time"
    late = frame(200, 500 * MS)
    assert Mix().process(late, context(history, mix=0.5)) == (late,), "none is near"


def test_the_history_keeps_both_neighbours_of_what_is_on_air() -> None:
    history = FrameHistory()
    for n in range(5):
        history.add(frame(n, n * 40))
    history.forget(90)
    before, after = history.around(90)
    assert (before and before.captured_ns, after and after.captured_ns) == (80, 120)
    assert len(history) == 3
    history.forget()
    assert len(history) == 0 and history.around(90) == (None, None)
