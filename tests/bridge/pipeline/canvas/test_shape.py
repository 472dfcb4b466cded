"""When a stretched picture is told, and that what is proposed instead is not stretched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.pipeline.canvas.shape import MOST_AREA, proposed_canvas, proposed_model, stretched
from bridge.pipeline.canvas.size import LARGEST_AREA, LARGEST_SIDE, Size, check_size
from bridge.process.engine.choice import MULTIPLE
from bridge.process.engine.choice import check_size as check_model_size

FULL = (1920, 1080)
MODELS = st.tuples(st.integers(2, 80), st.integers(2, 80)).map(lambda size: (MULTIPLE * size[0], MULTIPLE * size[1]))
CANVASES = (
    st.tuples(st.integers(1, LARGEST_SIDE // 2), st.integers(1, LARGEST_SIDE // 2))
    .map(lambda size: (2 * size[0], 2 * size[1]))
    .filter(lambda size: size[0] * size[1] <= LARGEST_AREA)
)


@pytest.mark.parametrize(
    ("model", "canvas"),
    [
        ((512, 288), FULL),
        ((512, 512), (512, 512)),
        ((832, 480), FULL),  # 468 would be exact
        ((640, 352), FULL),  # 360 would be exact
        ((128, 80), FULL),  # 72 would be exact: no multiple of 16 is nearer
        ((288, 512), (1080, 1920)),
    ],
)
def test_the_same_proportions_and_a_rounding_to_multiples_are_not_told(model: Size, canvas: Size) -> None:
    assert stretched(model, canvas) == ""


def test_the_sentence_names_both_sizes_and_what_to_do() -> None:
    assert stretched((512, 512), FULL) == (
        "The model's 512x512 is stretched to 1920x1080: use model size 688x384, or an output of 1080x1080."
    )
    assert stretched((288, 512), FULL).endswith("or an output of 608x1080.")
    flat = stretched((64, 48), (8192, 16))
    assert "model size" not in flat and flat.endswith("stretched to 8192x16: use an output of 22x16.")


@given(MODELS, CANVASES)
def test_what_is_proposed_fits_and_can_be_chosen(model: Size, canvas: Size) -> None:
    sentence = stretched(model, canvas)
    if not sentence:
        return
    assert len(sentence) <= 150
    output = proposed_canvas(model, canvas)
    check_size("{}x{}".format(*output))
    assert output[0] <= canvas[0] + 1 and output[1] <= canvas[1] + 1
    if min(output) >= 64:  # a few pixels cannot have the proportions
        assert stretched(model, output) == ""
    size = proposed_model(model, canvas)
    if size is not None:
        assert stretched(size, canvas) == "" and not (size[0] % MULTIPLE or size[1] % MULTIPLE)
        assert size[0] * size[1] <= MOST_AREA * model[0] * model[1]
        check_model_size("{}x{}".format(*size))
