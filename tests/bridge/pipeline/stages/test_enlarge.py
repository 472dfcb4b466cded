"""The stage that enlarges restyled pictures: detail of the input, and what is given up when a tick is too short."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from skimage import data

from bridge.control.values import Snapshot
from bridge.pipeline.canvas.scaling import enlarged, reduced
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.stages.base import Context, Place, Stage, StageRow
from bridge.pipeline.stages.chain import AGAIN_NS, TOO_LONG, StageChain
from bridge.pipeline.stages.enlarge import Enlarge, detailed
from bridge.pipeline.stages.enlarge_controls import EnlargeControls
from engine.frame import Frame

MODEL, CANVAS = (160, 90), (640, 360)


def photograph(size: tuple[int, int] = CANVAS) -> np.ndarray:
    return np.ascontiguousarray(cv2.resize(data.astronaut()[40:400], size, interpolation=cv2.INTER_AREA))


def palette(pixels: np.ndarray) -> np.ndarray:
    """A style that is a smooth function of the colour: a dark, purple negative."""
    table = 255 - np.arange(256) * np.float32([[0.9], [0.6], [0.8]])
    return np.stack([table[c].astype(np.uint8)[pixels[..., c]] for c in range(3)], -1)


def shown(full: Frame, detail: float, stage: Enlarge | None = None, canvas: tuple[int, int] = CANVAS) -> Frame:
    """What a tick makes of the restyled picture of an input frame."""
    history = FrameHistory()
    small = Frame(reduced(full.pixels, *MODEL), captured_ns=full.captured_ns)
    history.add(full, small)
    restyled = Frame(palette(small.pixels), captured_ns=full.captured_ns)
    context = Context(0, history, Snapshot([EnlargeControls(detail=detail)]), True, canvas)
    (made,) = (stage or Enlarge(MODEL)).process(restyled, context)
    return made


def test_detail_of_the_input_makes_the_picture_truer_and_without_it_it_is_cubic() -> None:
    full = Frame(photograph(), captured_ns=5)
    truth = palette(full.pixels)
    plain, half, whole = (shown(full, detail) for detail in (0.0, 0.5, 1.0))
    assert np.array_equal(plain.pixels, enlarged(palette(reduced(full.pixels, *MODEL)), *CANVAS))
    quality = [cv2.PSNR(made.pixels, truth) for made in (plain, half, whole)]
    assert quality[1] > quality[0] + 2.0 and quality[2] > quality[0] + 3.5, quality


def test_nothing_is_added_where_the_model_drew_something_of_its_own() -> None:
    full = photograph()
    rng = np.random.default_rng(3)
    own = cv2.GaussianBlur(rng.integers(0, 255, (MODEL[1], MODEL[0], 3), np.uint8), (0, 0), 3)
    plain = enlarged(own, *CANVAS)
    made = detailed(plain, own, full, reduced(full, *MODEL), 1.0)
    added = np.abs(made.astype(np.int32) - plain).mean()
    kept = palette(reduced(full, *MODEL))
    wanted = np.abs(
        detailed(enlarged(kept, *CANVAS), kept, full, reduced(full, *MODEL), 1.0).astype(np.int32)
        - enlarged(kept, *CANVAS)
    ).mean()
    assert added < wanted / 3


@pytest.mark.parametrize("canvas", [MODEL, CANVAS, (360, 640), (1920, 1080)])
def test_the_picture_has_the_size_of_the_canvas(canvas: tuple[int, int]) -> None:
    full = Frame(photograph(canvas), captured_ns=5)
    for detail in (0.0, 1.0):
        made = shown(full, detail, canvas=canvas)
        assert (made.width, made.height) == canvas


def test_the_first_pictures_after_the_canvas_has_changed_have_no_detail_and_the_new_size() -> None:
    made = shown(Frame(photograph((320, 180)), captured_ns=5), 1.0)
    assert (made.width, made.height) == CANVAS


def test_where_a_tick_is_too_short_the_dearest_refinement_is_left_out_said_and_tried_again() -> None:
    told: list[tuple[str, str]] = []
    stage = Enlarge(MODEL)

    class Dear(Stage):
        def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
            return (frame,)

    rows = [
        StageRow("dear", Place.TICK, lambda w, h: Dear()),
        StageRow("enlarge", Place.TICK, lambda w, h: stage),
    ]
    chain = StageChain(rows, Place.TICK, *MODEL, lambda topic, text: told.append((topic, text)))
    full = Frame(photograph(), captured_ns=5)
    history = FrameHistory()
    small = Frame(reduced(full.pixels, *MODEL), captured_ns=5)
    history.add(full, small)
    controls = Snapshot([EnlargeControls(detail=1.0)])

    def tick(now_ns: int, limit_ms: float) -> np.ndarray:
        chain.run(Frame(palette(small.pixels), captured_ns=5), Context(now_ns, history, controls, True, CANVAS))
        (made,) = chain.run(
            Frame(palette(small.pixels), captured_ns=5), Context(now_ns, history, controls, True, CANVAS)
        )
        chain.keep_within(limit_ms, now_ns)
        return made.pixels

    refined = shown(full, 1.0).pixels
    plain = shown(full, 0.0).pixels
    for n in range(TOO_LONG):
        assert told == [] and np.array_equal(tick(n, 0.0), refined)
    ((topic, text),) = told
    assert topic == "enlarge" and "detail is left out" in text
    assert np.array_equal(tick(TOO_LONG, 0.0), plain) and chain.given_up == ("detail",)
    for n in range(3 * TOO_LONG):
        tick(n, 0.0)
    assert len(told) == 1, "there is nothing else to leave out"
    tick(AGAIN_NS + TOO_LONG, 1e9)
    assert np.array_equal(tick(AGAIN_NS + TOO_LONG + 1, 1e9), refined) and chain.given_up == ()


def test_a_stage_that_fails_when_it_is_asked_to_give_something_up_costs_no_picture() -> None:
    told: list[tuple[str, str]] = []

    class Broken(Stage):
        def process(self, frame: Frame, context: Context) -> Sequence[Frame]:
            return (frame,)

        def give_up(self) -> str:
            raise RuntimeError("no")

    chain = StageChain(
        [StageRow("broken", Place.TICK, lambda w, h: Broken())],
        Place.TICK,
        *MODEL,
        lambda topic, text: told.append((topic, text)),
    )
    frame = Frame(photograph(MODEL))
    for n in range(2 * TOO_LONG):
        assert chain.run(frame, Context(n, FrameHistory(), Snapshot([]), True, MODEL)) == [frame]
        chain.keep_within(0.0, n)
    assert [topic for topic, _ in told] == ["broken"] and chain.given_up == ()
