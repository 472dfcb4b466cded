"""Transparency on its way: from the input through fit, mix and mask to the outputs, and what is said about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge.control.store import ControlStore
from bridge.pipeline.alpha.controls import STATE, STATES
from bridge.pipeline.alpha.stage import Alpha
from bridge.pipeline.alpha.told import SWITCH_ON, TOPIC, Told
from bridge.pipeline.fit import Fitter
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.pacing.pacer import Pick
from bridge.pipeline.stages.base import Context, Stage
from bridge.pipeline.stages.fit import Fit
from bridge.pipeline.stages.mix import Mix
from bridge.table import TABLE, start_values
from bridge.video.alpha import premultiplied, rgba
from engine.frame import Frame, PixelFormat
from tests.bridge.pipeline.test_publish import Engine, publisher

SIZE = (96, 64)


def run(stage: Stage, frame: Frame, history: FrameHistory | None = None, wet: bool = False, **values: Any) -> Frame:
    (made,) = stage.process(frame, Context(0, history or FrameHistory(), start_values(values), wet, SIZE))
    return made


def given(kind: PixelFormat = PixelFormat.RGBA, width: int = 96, height: int = 64) -> Frame:
    """A picture of smooth colours; its left half is transparent, its right half opaque, with soft steps between."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([250 * x, 250 * y, 120 + 0 * x], -1).astype(np.uint8)
    made = rgba(pixels, np.clip((x - 0.4) * 5 * 255, 0, 255).astype(np.uint8))
    return Frame(made if kind is PixelFormat.RGBA else np.ascontiguousarray(made[..., [2, 1, 0, 3]]), kind)


@pytest.mark.parametrize("kind", [PixelFormat.RGBA, PixelFormat.BGRA])
def test_the_alpha_of_the_input_is_taken_along_only_while_outputs_send_it(kind: PixelFormat) -> None:
    frame = given(kind)
    assert run(Fit(), frame).alpha is None, "off costs nothing"
    made = run(Fit(), frame, output_alpha="straight")
    assert made.alpha is not None and (made.alpha == frame.pixels[..., 3]).all()
    assert made.format is PixelFormat.RGB and (made.pixels == frame.rgb()).all(), "the picture is whole"
    assert run(Fit(), frame, output_alpha="straight", input_alpha="off").alpha is None
    assert run(Fit(), Frame(made.pixels), output_alpha="straight").alpha is None, "an opaque input"


@pytest.mark.parametrize("kind", [PixelFormat.RGBA, PixelFormat.BGRA])
def test_a_premultiplied_input_gets_its_own_colours_back(kind: PixelFormat) -> None:
    frame = given(kind)
    dark = Frame(premultiplied(frame.pixels), kind)
    made = run(Fit(), dark, output_alpha="premultiplied", input_alpha="premultiplied")
    assert made.alpha is not None and (made.alpha == frame.pixels[..., 3]).all()
    visible = made.alpha >= 64
    assert np.abs(made.pixels[visible].astype(int) - frame.rgb()[visible]).max() <= 2
    sent = premultiplied(rgba(made.pixels, made.alpha))
    assert (sent[..., :3] == dark.rgb()).all(), "nothing is lost on the way through"


@pytest.mark.parametrize("size", [(96, 64), (192, 128), (48, 32), (100, 30), (31, 77)])
@pytest.mark.parametrize("how", ["cover", "contain", "stretch"])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_alpha_is_fitted_as_the_picture_is(size: tuple[int, int], how: str, mirror: bool) -> None:
    """The alpha is also the red of the picture, so both must be the same wherever the picture is."""
    alpha = np.ascontiguousarray(given(width=size[0], height=size[1]).pixels[..., 3])
    pixels = np.repeat(alpha[..., None], 3, axis=2)
    made = Fitter(*SIZE).fit(Frame(pixels), how, mirror)[..., 0].astype(int)
    fitted = Fitter(*SIZE).fit_alpha(alpha, how, mirror)
    assert fitted.shape == made.shape and fitted.dtype == np.uint8 and fitted.flags.c_contiguous
    assert np.abs(fitted - made).max() <= 40 and np.abs(fitted - made).mean() < 4, "steep edges, scaled by two methods"


def test_the_bars_of_contain_are_transparent_whatever_the_input_is() -> None:
    tall = np.full((64, 32, 3), 200, np.uint8)
    for frame in (Frame(tall), Frame(rgba(tall, np.full((64, 32), 255, np.uint8)), PixelFormat.RGBA)):
        alpha = run(Fit(), frame, output_alpha="straight", fit="contain").alpha
        assert alpha is not None and (alpha[:, 32:64] == 255).all()
        assert not alpha[:, :32].any() and not alpha[:, 64:].any()
    assert run(Fit(), Frame(tall), fit="contain").alpha is None


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_a_restyled_picture_is_as_transparent_as_its_input_whatever_the_mix(mix: float) -> None:
    history, dry = FrameHistory(), run(Fit(), given(), output_alpha="straight")
    history.add(Frame(dry.pixels, captured_ns=50, alpha=dry.alpha))
    wet = Frame(np.full((64, 96, 3), 90, np.uint8), captured_ns=50)
    made = run(Mix(), wet, history, wet=True, mix=mix)
    assert made.alpha is not None and (made.alpha == dry.alpha).all()
    assert made.pixels[0, 0, 2] == round(120 + (90 - 120) * mix), "colours are mixed straight"
    small = run(Mix(), Frame(np.full((32, 48, 3), 90, np.uint8), captured_ns=50), history, wet=True, mix=mix)
    assert small.alpha is not None and small.alpha.shape == (32, 48)


def test_bypass_shows_the_input_with_its_own_alpha() -> None:
    dry = run(Fit(), given(), output_alpha="straight")
    made = run(Alpha(), run(Mix(), dry, output_alpha="straight"), output_alpha="straight")
    assert made.pixels is dry.pixels and made.alpha is dry.alpha and not made.premultiply


def test_a_picture_always_leaves_with_an_alpha_while_outputs_send_it_and_never_else() -> None:
    stage, cut = Alpha(), np.zeros((64, 96), np.uint8)
    picture = np.full((64, 96, 3), 70, np.uint8)
    for frame, mode, state, level in (
        (Frame(picture), "off", "off", None),
        (Frame(picture, alpha=cut), "off", "left out", None),
        (Frame(picture), "straight", "opaque", 255),
        (Frame(picture), "premultiplied", "opaque", 255),
        (Frame(picture, alpha=cut), "straight", "straight", 0),
        (Frame(picture, alpha=cut), "premultiplied", "premultiplied", 0),
    ):
        made = run(stage, frame, output_alpha=mode)
        assert stage.readings() == {STATE.name: state} and state in STATES
        assert made.pixels is picture and made.premultiply == (mode == "premultiplied")
        assert made.alpha is None if level is None else (made.alpha == level).all()
    plain = Frame(picture)
    assert run(stage, plain) is plain, "off costs nothing"
    one, two = (run(stage, plain, output_alpha="straight").alpha for _ in range(2))
    assert one is two, "no memory is taken for every picture"


def test_black_is_opaque_and_leaves_in_the_same_form_as_the_picture() -> None:
    store = ControlStore(TABLE)
    made = publisher(Engine(), lambda frame: None, [], store=store)
    cut = np.zeros((48, 64), np.uint8)

    def sent(black: bool, **values: Any) -> Frame:
        store.set_many({"black": black, **values})
        picture = Frame(np.full((48, 64, 3), 70, np.uint8), captured_ns=5, alpha=cut)
        return made._picture(store.snapshot, Pick(picture, True, "dry"))

    assert sent(False, output_alpha="premultiplied").alpha is cut
    black = sent(True)
    assert not black.pixels.any() and black.alpha is not None and (black.alpha == 255).all() and black.premultiply
    assert sent(True) is black, "it is not made anew"
    assert not sent(True, output_alpha="straight").premultiply
    black = sent(True, output_alpha="off")
    assert not black.pixels.any() and black.alpha is None


def test_what_cannot_be_sent_is_told_once_when_it_begins() -> None:
    errors: list[tuple[str, str]] = []
    told = Told(["ndi:Tidecast", "window:2", "spout:Tidecast", "null:"], lambda *error: errors.append(error))
    assert [told.unable(state) for state in ("off", "left out", "off", "left out")] == ["", "", "", ""]
    assert errors == [(TOPIC, SWITCH_ON)], "told once, although bypass comes and goes"
    assert told.unable("opaque") == told.unable("straight") == told.unable("premultiplied") == "window:2"
    assert len(errors) == 2 and errors[1][1].startswith("window:2 cannot send transparency")
    assert told.unable("off") == "" and len(errors) == 2
    able = Told(["ndi:Tidecast"], lambda *error: errors.append(error))
    assert able.unable("straight") == "" and len(errors) == 2
    able.unable("left out")
    able.unable("straight")
    able.unable("left out")
    assert len(errors) == 4, "again after it was switched on in between"
