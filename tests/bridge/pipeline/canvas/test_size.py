"""The size of the output: what may be written, and which canvas it means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.pipeline.canvas.scaling import enlarged, reduced
from bridge.pipeline.canvas.size import (
    LARGEST_AREA,
    LARGEST_SIDE,
    CanvasControls,
    canvas_size,
    check_size,
    same_shape,
)
from engine.control import controls_of
from engine.errors import ConfigError, ControlError

MODEL, SOURCE = (512, 288), (1279, 719)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1920x1080", (1920, 1080)),
        (" 1080 X 1920 ", (1080, 1920)),
        ("1920×1080", (1920, 1080)),
        ("64,48", (64, 48)),
        ("model", MODEL),
        ("Input", (1278, 718)),
    ],
)
def test_a_size_is_written_as_people_write_it(text: str, size: tuple[int, int]) -> None:
    check_size(text)
    assert canvas_size(text, MODEL, SOURCE) == size


@pytest.mark.parametrize(
    "text", ["", "big", "1920", "1920x", "1921x1080", "0x0", "-2x2", "8194x16", "7680x4320", "9" * 5000, "1e3x10", "x"]
)
def test_what_is_no_size_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_size(text)
    assert refused.value.remedy and len(str(refused.value)) < 250
    (control,) = controls_of(CanvasControls)
    with pytest.raises(ControlError) as told:
        control.coerce(text)
    assert told.value.address == "/tidecast/output/size"


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_size_of_any_source_gives_a_canvas_within_the_limits(width: int, height: int) -> None:
    canvas = canvas_size("input", MODEL, (width, height))
    assert all(2 <= side <= LARGEST_SIDE and side % 2 == 0 for side in canvas)
    assert canvas[0] * canvas[1] <= LARGEST_AREA
    assert canvas_size("input", MODEL, canvas) == canvas, "the canvas of a frame that lies on it is the same"


def test_a_stretch_that_nobody_sees_is_told_from_one_that_distorts() -> None:
    assert same_shape((832, 480), (1920, 1080)) and same_shape((512, 288), (3840, 2160))
    assert not same_shape((512, 512), (1920, 1080)) and not same_shape((1080, 1920), (1920, 1080))


def test_scaling_keeps_what_lies_where_and_the_array_of_the_same_size() -> None:
    ramp = np.tile(np.linspace(0, 255, 256, dtype=np.uint8)[None, :, None], (144, 1, 3))
    for width, height in ((64, 36), (100, 36), (150, 100), (256, 144), (640, 360)):
        for scaled in (reduced(ramp, width, height), enlarged(ramp, width, height)):
            assert scaled.shape == (height, width, 3) and scaled.dtype == np.uint8
            wanted = (np.arange(width) + 0.5) * 256 / width - 0.5
            assert np.abs(scaled[height // 2, 2:-2, 0] - wanted[2:-2]).max() <= 3
    assert reduced(ramp, 256, 144) is ramp and enlarged(ramp, 256, 144) is ramp
