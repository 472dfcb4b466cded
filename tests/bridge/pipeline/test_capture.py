"""The capture thread reports a defect in a transport and starts again."""

from __future__ import annotations

import threading

import pytest

from bridge.control.store import ControlStore
from bridge.pipeline.capture import Capture
from bridge.pipeline.stages.table import STAGES
from bridge.table import TABLE
from bridge.video.base import Options
from bridge.video.synthetic.pattern import PatternSource
from engine.frame import Frame


def test_a_defect_in_a_source_is_reported_and_capture_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    read, closed, calls = PatternSource.read, PatternSource.close, []

    def broken_once(self: PatternSource, timeout_s: float) -> Frame | None:
        calls.append("read")
        if calls.count("read") == 2:
            raise RuntimeError("a defect")
        return read(self, timeout_s)

    def close(self: PatternSource) -> None:
        calls.append("close")
        closed(self)

    monkeypatch.setattr(PatternSource, "read", broken_once)
    monkeypatch.setattr(PatternSource, "close", close)
    seen, enough, told = list[Frame](), threading.Event(), list[tuple[str, str]]()

    def take(frame: Frame, small: Frame) -> None:
        seen.append(frame)
        if len(seen) == 5:
            enough.set()

    capture = Capture(
        "pattern:bars",
        Options(),
        64,
        48,
        ControlStore(TABLE),
        STAGES,
        lambda: (),
        take,
        lambda topic, text: told.append((topic, text)),
    )
    capture.start()
    assert enough.wait(60.0)
    capture.stop()
    assert told == [("/input", "pattern:bars has failed: a defect.")]
    assert calls.count("close") == 2, "the source was closed after the defect"
    assert [frame.seq for frame in seen[:5]] == [0, 1, 2, 3, 4]
    assert {(frame.width, frame.height) for frame in seen} == {(64, 48)}
