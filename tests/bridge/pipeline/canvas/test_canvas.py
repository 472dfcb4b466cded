"""The whole bridge with an output of another size than the model's: what lies where, and what changes live."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.error import FFmpegError

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.origin import Origin, Trust
from bridge.control.store import Caller
from bridge.pipeline.canvas.shape import stretched
from engine.frame import Frame

MODEL = (64, 48)
OPERATOR = Origin("test", Trust.OPERATOR)


def until(happened: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def app(size: str, source: str = "pattern:bars", **settings: Any) -> App:
    chosen = {"controls.output_size": size, "output.fps": 30.0} | settings
    return App(load(None, identity(source, "null:", *MODEL) | chosen))


def shape(size: tuple[int, int]) -> tuple[int, int, int]:
    return size[1], size[0], 3


def test_the_output_has_its_own_size_restyled_bypassed_and_black(sent: list[Frame]) -> None:
    with app("320x240") as bridge:
        until(lambda: bridge.telemetry.snapshot().get("state") == "running", "it runs")
        for control in (None, "bypass", "freeze", "black"):
            if control:
                bridge.store.set(control, True)
            sent.clear()
            until(lambda: len(sent) > 5, "pictures")
            assert {frame.pixels.shape for frame in sent} == {shape((320, 240))}, control
        assert not sent[-1].pixels.any()


def test_the_input_on_the_canvas_is_the_input_and_the_restyled_picture_lies_on_it(sent: list[Frame]) -> None:
    """The pattern has sharp edges: enlarged from the model's size they lie where those of the input are."""
    with app("640x480") as bridge:
        until(lambda: bridge.telemetry.snapshot().get("state") == "running", "it runs")
        sent.clear()
        until(lambda: len(sent) > 5, "pictures")
        wet = sent[-1].pixels.astype(np.int32)
        bridge.store.set("bypass", True)
        until(lambda: not np.array_equal(sent[-1].pixels, wet), "the input")
        count = len(sent)
        until(lambda: len(sent) > count + 3, "pictures")
        dry = sent[-1].pixels.astype(np.int32)
    assert dry.shape == wet.shape == (480, 640, 3)
    sharp = np.abs(np.diff(dry[60, :, 0]))
    soft = np.abs(np.diff(wet[60, :, 0]))
    edges = np.flatnonzero(sharp > 40)
    assert len(edges) >= 2, "the input keeps its sharp edges"
    for edge in edges:
        around = soft[max(0, edge - 20) : edge + 21]
        centre = float((around * np.arange(len(around))).sum() / around.sum()) + max(0, edge - 20)
        assert abs(centre - edge) <= 2.0, "a fifth of a pixel of the model"


@pytest.mark.alone
def test_the_size_changes_live_without_a_gap_and_a_wrong_one_changes_nothing(sent: list[Frame], tmp_path: Path) -> None:
    with app("320x240", **{"storage.record_dir": str(tmp_path)}) as bridge:
        until(lambda: bridge.telemetry.snapshot().get("state") == "running", "it runs")
        bridge.store.set("record", True)
        until(lambda: any(path.stat().st_size for path in tmp_path.glob("*.mp4")), "a recording")
        bridge.publisher.main.longest_gap_ms = 0.0
        said: list[Any] = []
        changes = ("480x270", (480, 270)), ("nonsense", (480, 270)), ("model", MODEL), ("200x400", (200, 400))
        for text, size in changes:
            caller = Caller(OPERATOR, lambda address, args: said.append((address, *args)))
            bridge.store.handle("/tidecast/output/size", (text,), caller.origin, caller.reply)
            until(lambda size=size: sent[-1].pixels.shape == shape(size), text)
            count = len(sent)
            until(lambda count=count: len(sent) > count + 15, "pictures")
            assert sent[-1].pixels.shape == shape(size)
        assert bridge.publisher.main.longest_gap_ms < 500.0
        assert any("no size" in str(words) for words in said), said
        until(lambda: (200, 400) in sizes_in(tmp_path), "a new size begins a new file")
        bridge.store.set("record", False)
        until(lambda: not bridge.telemetry.snapshot().get("recording"), "the end of the recording")
    assert {(320, 240), (200, 400)} <= sizes_in(tmp_path)


def sizes_in(folder: Path) -> set[tuple[int, int]]:
    """The sizes of the recordings that can be played."""
    sizes = set()
    for path in folder.glob("*.mp4"):
        with contextlib.suppress(FFmpegError), av.open(str(path)) as film:
            sizes.add((film.streams.video[0].width, film.streams.video[0].height))
    return sizes


def test_the_source_may_decide(sent: list[Frame]) -> None:
    with app("input") as bridge:
        until(lambda: bridge.capture.history.newest is not None, "input")
        info = bridge.capture.info
        assert info is not None and info.width > MODEL[0]
        until(lambda: sent and sent[-1].pixels.shape == shape((info.width, info.height)), "the source's size")


def test_a_stretched_picture_is_told_once_for_every_size(sent: list[Frame], caplog: pytest.LogCaptureFixture) -> None:
    """The reading stays as long as it is so; the log has one line for each change, not for each picture."""

    def told() -> str:
        return str(bridge.telemetry.snapshot().get("stretched", ""))

    with caplog.at_level("WARNING"), app("480x270") as bridge:
        until(lambda: "480x270" in told(), "the size of the start")
        assert told() == stretched(MODEL, (480, 270)) and "model size" in told() and "an output of 360x270" in told()
        bridge.store.set("output_size", "360x270", OPERATOR)  # what it proposes
        until(lambda: told() == "", "nothing to tell")
        bridge.store.set("output_size", "200x400", OPERATOR)
        until(lambda: "200x400" in told(), "the next size")
        count = len(sent)
        until(lambda: len(sent) > count + 15, "pictures")
        lines = [record.getMessage() for record in caplog.records if "is stretched" in record.getMessage()]
    assert lines == [f"output: {stretched(MODEL, size)}" for size in ((480, 270), (200, 400))]


def test_both_latencies_are_told(sent: list[Frame]) -> None:
    settings = {"controls.reproject": 1.0, "engine.width": 128, "engine.height": 96}
    with app("128x96", "pattern:dance", **settings) as bridge:
        until(lambda: bridge.telemetry.snapshot().get("reprojection") == "on", "reprojection")

        def told() -> bool:
            readings = bridge.telemetry.snapshot()
            return 0.0 < readings["motion_latency"] <= readings["latency"]

        until(told, "both latencies")
        sent.clear()
        until(lambda: len(sent) > 20, "pictures")
        restyled = [frame for frame in sent if frame.moved_ns]
        assert restyled and all(frame.moved_ns >= frame.captured_ns for frame in restyled)
