"""A stage after the engine may change the size: mix, black, recording and preview follow. One before it may not."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import av
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.config_file import load
from bridge.control.store import ControlStore
from bridge.control.values import Snapshot
from bridge.pipeline.capture import Capture
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from bridge.pipeline.stages.mix import Mix
from bridge.pipeline.stages.mix_controls import MixControls
from bridge.pipeline.stages.table import STAGES
from bridge.table import TABLE
from bridge.video.base import Options
from bridge.video.synthetic.null import NullSink
from bridge.web.packed_picture import unpacked
from bridge.web.preview import Preview
from engine.frame import Frame
from tests.support import toy_transport

WIDTH, HEIGHT = 64, 48
LEFT, RIGHT = 200, 100
"""Grey of the two halves of the input."""

TOLERANCE = 2
SIDES = st.integers(1, 8192)


class Halves(Stage):
    """Makes the left half of the input lighter."""

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        pixels = frame.pixels.copy()
        pixels[:, : WIDTH // 2] = LEFT
        return (dataclasses.replace(frame, pixels=pixels),)


class Double(Stage):
    """Doubles width and height; a restyled frame is inverted too, so that it differs from its input."""

    def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
        pixels = frame.pixels.repeat(2, axis=0).repeat(2, axis=1)
        return (dataclasses.replace(frame, pixels=255 - pixels if context.wet else pixels),)


def halves(pixels: np.ndarray) -> tuple[int, int]:
    """Grey of a pixel in the left half and of one in the right half."""
    height, width = pixels.shape[:2]
    return int(pixels[height // 3, width // 4, 0]), int(pixels[height // 3, width * 3 // 4, 0])


def near(pixels: np.ndarray, left: int, right: int) -> bool:
    seen = halves(pixels)
    return abs(seen[0] - left) <= TOLERANCE and abs(seen[1] - right) <= TOLERANCE


def soon(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def shelf() -> Iterator[None]:
    with toy_transport.registered():
        yield


@pytest.mark.parametrize(("place", "after_mix"), [(Place.RESTYLED, False), (Place.TICK, False), (Place.TICK, True)])
def test_the_output_takes_the_size_that_a_stage_gives(
    place: Place, after_mix: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent: list[np.ndarray] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        sent.append(frame.pixels)

    monkeypatch.setattr(NullSink, "send", record)
    settings = identity(f"shelf:{RIGHT}", "null:", WIDTH, HEIGHT) | {
        "output.fps": 30.0,
        "storage.record_dir": str(tmp_path),
    }
    double = StageRow("double", place, lambda width, height: Double())
    lighten = StageRow("halves", Place.INPUT, lambda width, height: Halves())
    rows = (*STAGES, lighten, double) if after_mix else (double, *STAGES, lighten)
    wet, dry = (255 - LEFT, 255 - RIGHT), (LEFT, RIGHT)
    blends = (wet, wet) if after_mix else ((127, 127), dry)  # after the mix, its result is inverted
    with App(load(None, settings), stages=rows) as app:
        told: list[tuple[str, str]] = []
        app.telemetry.listen_errors(lambda *said: told.append((said[0], said[1])))

        def shows(left: int, right: int) -> Callable[[], bool]:
            return lambda: near(sent[-1], left, right)

        soon(lambda: bool(sent), "the output runs")
        soon(shows(*wet), "the restyled picture")
        assert sent[-1].shape == (2 * HEIGHT, 2 * WIDTH, 3)
        app.store.set("record", True)
        sent.clear()
        soon(lambda: bool(sent), "the output runs")
        for control, value, left, right in (
            ("mix", 0.5, *blends[0]),
            ("mix", 0.0, *blends[1]),
            ("mix", 1.0, *wet),
            ("bypass", True, *dry),
            ("black", True, 0, 0),
        ):
            app.store.set(control, value)
            soon(shows(left, right), f"{control} {value}")
        assert {pixels.shape for pixels in sent} == {(2 * HEIGHT, 2 * WIDTH, 3)}, "the size stays"
        soon(lambda: bool(app.telemetry.snapshot().get("recording")), "a recording")
        count = len(sent)
        soon(lambda: len(sent) > count + 10, "the output runs")
        app.store.set("record", False)
        assert told == []
    (path,) = tmp_path.iterdir()
    with av.open(str(path)) as film:
        assert {(picture.width, picture.height) for picture in film.decode(video=0)} == {(2 * WIDTH, 2 * HEIGHT)}


def picture(width: int, height: int, grey: int = 0) -> Frame:
    return Frame(np.full((height, width, 3), grey, np.uint8))


def test_the_mix_leaves_pictures_of_one_size_as_they_are() -> None:
    history, dry, wet = FrameHistory(), picture(4, 4), picture(4, 4, 9)
    history.add(dry)
    mix = Mix()
    for share, context_wet, given, wanted in ((1.0, True, wet, wet), (0.0, True, wet, dry), (1.0, False, dry, dry)):
        context = Context(0, history, Snapshot([MixControls(mix=share)]), wet=context_wet, canvas=(4, 4))
        assert mix.process(given, context)[0] is wanted


def test_a_stage_of_the_input_may_not_leave_another_size_and_is_named() -> None:
    rows = (*STAGES, StageRow("zoom", Place.INPUT, lambda width, height: Double()))
    taken, told = frames_of(rows, f"shelf:{RIGHT}", 20)
    assert {frame.pixels.shape for frame in taken} == {(HEIGHT, WIDTH, 3)}, "the input goes on without it"
    ((topic, text),) = told
    assert topic == "zoom" and f"{2 * WIDTH}x{2 * HEIGHT}" in text and f"{WIDTH}x{HEIGHT}" in text


def test_a_stage_before_the_fit_may_change_the_size() -> None:
    rows = (StageRow("zoom", Place.INPUT, lambda width, height: Double()), *STAGES)
    taken, told = frames_of(rows, f"shelf:{RIGHT}", 20)
    assert {frame.pixels.shape for frame in taken} == {(HEIGHT, WIDTH, 3)} and told == []


def test_frames_that_no_stage_has_fitted_are_reported_once() -> None:
    taken, told = frames_of((), "pattern:bars", 0)
    assert not taken
    texts = [text for topic, text in told if topic == "/input" and "no stage" in text]
    assert f"{WIDTH}x{HEIGHT}" in texts[0]
    failures = len(told) - len(texts)  # of an input that did not answer in time; after one it is told anew
    assert len(texts) <= 1 + failures, told


def frames_of(rows: Sequence[StageRow], uri: str, count: int) -> tuple[list[Frame], list[tuple[str, str]]]:
    """What a capture with these stages passes on and reports: until so many frames came, or one that fits nowhere."""
    taken, told, enough = list[Frame](), list[tuple[str, str]](), threading.Event()

    def take(frame: Frame, small: Frame) -> None:
        taken.append(frame)
        if len(taken) >= count:
            enough.set()

    def tell(topic: str, text: str) -> None:
        told.append((topic, text))
        if not count and "no stage" in text:  # a busy machine may also be told that the input does not answer
            enough.set()

    store = ControlStore(TABLE)
    capture = Capture(uri, Options(), WIDTH, HEIGHT, store, rows, lambda: (), take, tell)
    capture.start()
    assert enough.wait(60.0)
    if not count:
        store.set("input", uri)  # the same again
        time.sleep(0.3)  # more frames of that size come
    capture.stop()
    return taken, told


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("output", {(96, 64): (96, 64), (192, 128): (117, 78), (64, 64): (64, 64), (64, 400): (20, 128)}),
        ("wall", {(96, 64): (96, 64), (192, 128): (96, 64), (64, 64): (64, 64), (64, 400): (31, 195)}),
    ],
)
def test_the_preview_has_the_proportions_of_the_picture_whatever_its_size(
    kind: str, sizes: dict[tuple[int, int], tuple[int, int]]
) -> None:
    """It began with 96x64 and a longest side of 128; no black bar is added, and the whole picture is there."""
    preview = Preview(96, 64, 1000.0, 128)
    preview.open()
    try:
        preview.watched = frozenset({kind})
        with preview.readers() as readers:
            for (width, height), wanted in sizes.items():
                time.sleep(0.02)  # a wall has 60 pictures a second
                preview.offer("output", picture(width, height, 50))
                frame = readers[kind].get(1.0)
                assert frame is not None
                shown = unpacked(frame)
                assert shown.shape == (wanted[1], wanted[0], 3)
                assert np.abs(shown.astype(int) - 50).max() <= TOLERANCE
    finally:
        preview.close()


@hypothesis.given(SIDES, SIDES, SIDES, SIDES)
def test_every_picture_has_room_in_its_ring(first_width: int, first_height: int, width: int, height: int) -> None:
    preview = Preview(first_width, first_height, 24.0, 640)
    for kind, room in (("wall", first_width * first_height), ("input", 640 * 360)):
        across, down = preview._shown_size(kind, width, height)
        assert 1 <= across <= width and 1 <= down <= height and across * down <= room
    assert preview._shown_size("wall", first_width, first_height) == (first_width, first_height)
    assert preview._shown_size("output", 1920, 1080) == (640, 360)
