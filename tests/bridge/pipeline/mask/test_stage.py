"""The stage `mask`: what is restyled and what is not, and what happens when there is nothing to mask with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bridge.control.values import Snapshot
from bridge.pipeline.canvas.scaling import reduced
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.controls import AREA, STATE, MaskControls
from bridge.pipeline.mask.region import LEAST, Region, parsed, region_of
from bridge.pipeline.mask.stage import Mask, working_size
from bridge.pipeline.mask.timeline import LOST_NS, PersonMask
from bridge.pipeline.stages.base import Context
from engine.errors import ControlError
from engine.frame import Frame
from tests.bridge.pipeline.mask.test_smoothing import PERIOD

SIZE = (320, 192)
SMALL = (160, 96)
WET = np.full((SIZE[1], SIZE[0], 3), (250, 40, 200), np.uint8)
LUMA = {"mask_source": "luma", "mask_use": "inside", "mask_luma_low": 0.5, "mask_key_softness": 0.0}


def half_bright(left: int = 160) -> np.ndarray:
    """Noise: dark to the left of a column, bright to the right of it."""
    pixels = np.random.default_rng(3).integers(10, 60, (SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:, left:] += 180
    return pixels


class Scene:
    """A stage with some input frames, the restyled picture of the last of which is on air."""

    def __init__(self, *pictures: np.ndarray) -> None:
        self.stage, self.history = Mask(), FrameHistory()
        self.count = 0
        for pixels in pictures:
            self.take(pixels)

    def take(self, pixels: np.ndarray) -> None:
        self.count += 1
        ns = self.count * PERIOD
        small = Frame(reduced(pixels, *SMALL), captured_ns=ns, seq=self.count)
        self.history.add(Frame(pixels, captured_ns=ns, seq=self.count), small)

    def mask(self, number: int, values: np.ndarray, region: Region = Region()) -> None:  # noqa: B008 - frozen
        self.history.masks.add(PersonMask(number * PERIOD, values, region))

    def tick(self, wet: bool = True, captured: int = 0, moved: int = 0, now: int = 0, **values: Any) -> Frame:
        frame = Frame(WET, captured_ns=(captured or self.count) * PERIOD, moved_ns=moved * PERIOD)
        context = Context(now, self.history, Snapshot([MaskControls(**values)]), wet, SIZE)
        (made,) = self.stage.process(frame, context)
        return made

    @property
    def state(self) -> str:
        return str(self.stage.readings()[STATE.name])


def test_inside_is_restyled_and_outside_is_the_input_to_the_bit() -> None:
    dry = half_bright()
    scene = Scene(dry)
    made = scene.tick(**LUMA).pixels
    assert (made[:, :150] == dry[:, :150]).all() and (made[:, 170:] == WET[:, 170:]).all()
    assert scene.state == "on" and abs(scene.stage.readings()[AREA.name] - 0.5) < 0.02
    other = scene.tick(**LUMA | {"mask_use": "outside"}).pixels
    assert (other[:, :150] == WET[:, :150]).all() and (other[:, 170:] == dry[:, 170:]).all()
    inverted = scene.tick(**LUMA, mask_invert=True).pixels
    assert (inverted == other).all(), "to invert exchanges the same"


def test_shares_of_both_parts_and_a_colour_behind() -> None:
    dry = half_bright()
    scene = Scene(dry)
    made = scene.tick(**LUMA, mask_mix=0.0, mask_background="color", mask_background_color="#0000ff").pixels
    assert (made[:, 170:] == dry[:, 170:]).all() and (made[:, :150] == (0, 0, 255)).all()
    half = scene.tick(**LUMA, mask_rest=0.5).pixels.astype(int)
    assert np.abs(half[:, :150] - (dry[:, :150].astype(int) + WET[:, :150]) / 2).max() <= 1
    assert (half[:, 170:] == WET[:, 170:]).all()


def test_the_matte_is_on_the_frame_for_each_tick_and_can_be_sent_itself() -> None:
    scene = Scene(half_bright())
    made = scene.tick(**LUMA)
    assert made.matte is not None and made.matte.shape == WET.shape[:2] and made.matte.dtype == np.uint8
    assert (made.matte[:, 170:] == 255).all() and not made.matte[:, :150].any()
    outside = scene.tick(**LUMA | {"mask_use": "outside"}).matte
    assert outside is not None and (outside == 255 - made.matte).all(), "it is what is restyled"
    seen = scene.tick(**LUMA | {"mask_use": "off"}, mask_view=True).pixels
    assert (seen == made.matte[:, :, None]).all()


def test_input_frames_and_an_unused_mask_change_nothing() -> None:
    scene = Scene(half_bright())
    for made in (scene.tick(wet=False, **LUMA, mask_view=True), scene.tick(**LUMA | {"mask_use": "off"}), scene.tick()):
        assert made.pixels is WET and made.matte is None
        assert scene.state == "off" and scene.stage.readings()[AREA.name] == 0.0


def test_without_a_person_mask_or_its_input_the_whole_picture_is_restyled_and_it_says_so() -> None:
    scene = Scene(half_bright())
    person = {"mask_source": "person", "mask_use": "inside"}
    made = scene.tick(**person, mask_background="color")
    assert made.pixels is WET and scene.state == "missing"
    assert scene.tick(captured=99, **person).pixels is WET
    assert scene.state == "no input"
    values = np.zeros((144, 256), np.uint8)
    scene.mask(1, values)
    assert (scene.tick(**person).pixels == half_bright()).all() and scene.state == "on"
    scene.history.masks.held = True
    scene.tick(**person)
    assert scene.state == "held"


def test_person_and_key_are_what_belongs_to_both() -> None:
    scene = Scene(half_bright())
    values = np.zeros((144, 256), np.uint8)
    values[:72] = 255
    scene.mask(1, values)
    matte = scene.tick(**LUMA | {"mask_source": "person-luma"}).matte
    assert matte is not None
    assert (matte[:70, 170:] == 255).all() and not matte[122:].any() and not matte[:, :150].any()


def given(scene: Scene, values: np.ndarray, number: int = 1) -> None:
    scene.history.matte_input.add(number * PERIOD, values)


GIVEN = {"mask_source": "input", "mask_use": "inside"}
AS_IT_IS = {"mask_refine": False, "mask_softness": 1.0}


def test_a_given_matte_is_used_as_it_is_and_outside_is_the_input_to_the_bit() -> None:
    dry = half_bright()
    scene = Scene(dry)
    values = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    values[7:95, 33:201] = 255
    values[100:101] = np.arange(SIZE[0]) % 256
    given(scene, values)
    made = scene.tick(**GIVEN, **AS_IT_IS)
    assert made.matte is not None and (made.matte == values).all() and scene.state == "on"
    assert (made.pixels[values == 0] == dry[values == 0]).all() and (made.pixels[values == 255] == WET[0, 0]).all()
    inverted = scene.tick(**GIVEN, **AS_IT_IS, mask_invert=True).matte
    assert inverted is not None and (inverted == 255 - values).all()
    higher = scene.tick(**GIVEN, mask_refine=False, mask_softness=0.0, mask_threshold=0.5).matte
    assert higher is not None and set(np.unique(higher)) == {0, 255} and higher[50, 100] == 255
    part = scene.tick(**GIVEN, **AS_IT_IS, mask_left=0.5).matte
    assert part is not None and not part[:, :160].any() and (part[:, 160:] == values[:, 160:]).all()
    for larger in ({"mask_grow": 5.0}, {"mask_feather": 5.0}):
        assert scene.tick(**GIVEN, **AS_IT_IS, **larger).matte[50, 204] > 40  # type: ignore[index]
    fine = scene.tick(**GIVEN).matte
    assert fine is not None and fine[50, 100] == 255 and not fine[:90, 240:].any(), "refined along edges of the input"
    outside = fine == 0
    assert (scene.tick(**GIVEN).pixels[outside] == dry[outside]).all() and outside[:90].any()


def test_the_given_matte_is_that_of_the_moment_that_is_shown() -> None:
    scene = Scene(*[half_bright()] * 3)
    for number, level in ((1, 10), (2, 20), (3, 30)):
        given(scene, np.full((SIZE[1], SIZE[0]), level, np.uint8), number)
    for captured, moved, level in ((1, 0, 10), (2, 0, 20), (1, 3, 30)):
        matte = scene.tick(captured=captured, moved=moved, **GIVEN, **AS_IT_IS).matte
        assert matte is not None and (matte == level).all()


def test_people_and_a_given_matte_are_what_belongs_to_both() -> None:
    scene = Scene(half_bright())
    upper, left = np.zeros((144, 256), np.uint8), np.zeros((SIZE[1], SIZE[0]), np.uint8)
    upper[:72], left[:, :160] = 255, 255
    both = GIVEN | {"mask_source": "person-input", "mask_refine": False}
    for ready in (lambda: scene.mask(1, upper), lambda: given(scene, left)):
        assert scene.tick(**both).pixels is WET and scene.state == "missing"
        ready()
    matte = scene.tick(**both).matte
    assert matte is not None and (matte[:90, :150] == 255).all() and not matte[100:].any() and not matte[:, 170:].any()


def test_without_a_second_input_or_with_a_stale_one_the_whole_picture_is_restyled_until_it_is_back() -> None:
    scene = Scene(half_bright())
    assert scene.tick(**GIVEN).pixels is WET and scene.state == "missing"
    given(scene, np.zeros((SIZE[1], SIZE[0]), np.uint8))
    assert (scene.tick(**GIVEN).pixels == half_bright()).all() and scene.state == "on"
    assert scene.tick(now=PERIOD + LOST_NS + 1, **GIVEN).pixels is WET and scene.state == "missing"
    given(scene, np.zeros((SIZE[1], SIZE[0]), np.uint8), 40)
    assert scene.tick(now=PERIOD + LOST_NS + 1, **GIVEN).pixels is not WET and scene.state == "on"


def test_a_second_input_behind_the_person() -> None:
    scene = Scene(half_bright())
    behind = LUMA | {"mask_background": "second"}
    assert scene.tick(**behind).pixels is WET and scene.state == "missing"
    clip = np.random.default_rng(9).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    scene.history.background_input.add(1, clip)
    made = scene.tick(**behind).pixels
    assert (made[:, :150] == clip[:, :150]).all() and (made[:, 170:] == WET[:, 170:]).all() and scene.state == "on"
    part = scene.tick(**behind, mask_mix=0.0).pixels
    assert (part[:, 170:] == half_bright()[:, 170:]).all(), "inside it is the input that is mixed"
    scene.history.background_input.add(2, np.full((9, 16, 3), 77, np.uint8))
    assert (scene.tick(**behind).pixels[:, :150] == 77).all(), "one of the size before is stretched"
    assert scene.tick(now=3 * LOST_NS, **behind).pixels is WET and scene.state == "missing"


def test_the_region_limits_every_source_and_is_what_the_mask_covers() -> None:
    scene = Scene(half_bright(0))
    half = {"mask_left": 0.5, "mask_refine": False}
    matte = scene.tick(**LUMA | half).matte
    assert matte is not None and not matte[:, :158].any() and (matte[:, 162:] == 255).all()
    scene.mask(1, np.full((144, 256), 255, np.uint8), Region(0.5, 0.5, 1.0, 1.0))
    matte = scene.tick(mask_source="person", mask_use="inside", mask_refine=False).matte
    assert matte is not None and (matte[100:, 164:] == 255).all()
    assert not matte[:92].any() and not matte[:, :156].any()


def test_regions_are_put_in_order_and_never_empty() -> None:
    assert region_of(MaskControls(mask_left=0.8, mask_right=0.2)) == Region(0.2, 0.0, 0.8, 1.0)
    for end in (0.0, 0.4, 1.0):
        narrow = region_of(MaskControls(mask_left=end, mask_right=end))
        assert 0.0 <= narrow.left < narrow.right <= 1.0 and abs(narrow.right - narrow.left - LEAST) < 1e-9
        rows, columns = narrow.slices(16, 16)
        assert columns.start < columns.stop <= 16 and rows == slice(0, 16)
    part = Region(0.1234, 0.0, 0.5, 0.75)
    assert parsed(str(part)) == part


def moving(left: int) -> np.ndarray:
    """A bright square on a textured ground."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    pixels = np.repeat((60 + 40 * np.sin(x / 5) * np.sin(y / 7)).astype(np.uint8)[:, :, None], 3, axis=2)
    pixels[50:140, left : left + 90] = (220, 200, 180) - (30 * ((x[50:140, left : left + 90] // 8) % 2))[..., None]
    return pixels


def truth(left: int) -> np.ndarray:
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[50:140, left : left + 90] = 255
    return mask


def test_the_matte_is_that_of_the_moment_that_is_shown_although_the_mask_is_older() -> None:
    scene = Scene(moving(60), moving(72), moving(84))
    scene.mask(1, np.asarray(reduced(truth(60)[:, :, None].repeat(3, 2), 256, 144)[:, :, 0]))
    person = {"mask_source": "person", "mask_use": "inside", "mask_refine": False, "mask_softness": 0.0}
    wrong = {}
    for name, captured, moved, left in (("own", 1, 0, 60), ("reprojected", 1, 3, 84)):
        matte = scene.tick(captured=captured, moved=moved, **person).matte
        assert matte is not None
        wrong[name] = np.mean((matte > 127) != (truth(left) > 127))
    stale = np.mean((truth(60) > 127) != (truth(84) > 127))
    assert wrong["own"] < 0.2 * stale and wrong["reprojected"] < 0.4 * stale, (wrong, stale)
    scene.take(np.random.default_rng(5).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))  # a cut
    matte = scene.tick(**person).matte
    assert matte is not None and np.mean((matte > 127) != (truth(60) > 127)) < 0.02, "motion explains nothing here"


def test_feather_takes_precedence_over_the_fine_edge_and_spill_greys_what_is_nearly_the_key() -> None:
    scene = Scene(half_bright())
    matte = scene.tick(**LUMA, mask_feather=5.0).matte
    assert matte is not None and np.count_nonzero((matte[90] > 5) & (matte[90] < 250)) > 10
    green = np.full((SIZE[1], SIZE[0], 3), (0, 177, 64), np.uint8)
    green[:, 160:] = (60, 150, 80)
    keyed = {"mask_source": "chroma", "mask_use": "inside", "mask_mix": 0.0, "mask_key_softness": 0.05}
    scene = Scene(green)
    seen = scene.tick(**keyed, mask_spill=1.0).pixels
    pure = scene.tick(**keyed, mask_spill=0.0).pixels
    assert (pure[:, 170:] == (60, 150, 80)).all() and (seen[:, :150] == (0, 177, 64)).all(), "outside it is the input"
    assert int(np.ptp(seen[90, 250])) < 0.6 * int(np.ptp(pure[90, 250])), "less colour"


def test_it_gives_up_the_refinement_only_while_it_refines() -> None:
    scene = Scene(half_bright())
    assert scene.stage.give_up() == ""
    fine = scene.tick(**LUMA).matte
    assert scene.stage.give_up() == "refinement of the matte" and scene.stage.give_up() == ""
    rough = scene.tick(**LUMA).matte
    scene.stage.restore()
    again = scene.tick(**LUMA).matte
    assert fine is not None and rough is not None and again is not None
    assert (again == fine).all() and (rough != fine).any()


def test_pictures_of_other_sizes_fit() -> None:
    scene = Scene(half_bright())
    context = Context(0, scene.history, Snapshot([MaskControls(**LUMA)]), True, SIZE)
    (made,) = scene.stage.process(Frame(np.ascontiguousarray(WET[::2, ::2]), captured_ns=PERIOD), context)
    assert made.pixels.shape == (96, 160, 3) and made.matte is not None and made.matte.shape == (96, 160)
    assert working_size(Frame(np.zeros((64, 96, 3), np.uint8))) == (96, 64)
    width, height = working_size(Frame(np.zeros((720, 1280, 3), np.uint8)))
    assert (width, height) == (640, 360)


def test_a_repeated_tick_makes_nothing_anew() -> None:
    scene = Scene(half_bright())
    one, two = scene.tick(**LUMA).matte, scene.tick(**LUMA).matte
    assert one is two
    assert scene.tick(**LUMA, mask_grow=1.0).matte is not one


CUT = LUMA | {"mask_use": "alpha"}


def test_alpha_cuts_the_whole_restyled_picture_out() -> None:
    scene = Scene(half_bright())
    made = scene.tick(**CUT)
    assert (made.pixels == WET).all(), "the picture is whole under what is transparent"
    assert made.alpha is not None and (made.alpha[:, 170:] == 255).all() and not made.alpha[:, :150].any()
    assert made.matte is made.alpha, "nothing is computed twice"
    same = scene.tick(**CUT, mask_rest=1.0, mask_background="color")
    assert (same.pixels == WET).all() and (same.alpha == made.alpha).all(), (
        "the rest is transparent, so it shows nothing"
    )
    outside = scene.tick(**CUT, mask_invert=True).alpha
    assert outside is not None and (outside == 255 - made.alpha).all()
    dry = scene.tick(**CUT, mask_mix=0.0)
    assert (dry.pixels == half_bright()).all() and (dry.alpha == made.alpha).all()


def test_what_is_transparent_already_stays_so_and_the_matte_is_shown_opaque() -> None:
    scene = Scene(half_bright())
    frame = Frame(WET, captured_ns=PERIOD, alpha=np.full(WET.shape[:2], 128, np.uint8))
    for values, left, right in (
        (CUT, 0, 128),
        (LUMA, 128, 128),
        (CUT | {"mask_view": True}, None, None),
        (CUT | {"mask_source": "person"}, 128, 128),
    ):
        context = Context(0, scene.history, Snapshot([MaskControls(**values)]), True, SIZE)
        (made,) = scene.stage.process(frame, context)
        if left is None:
            assert made.alpha is None
        else:
            assert (
                made.alpha is not None and (made.alpha[:, :150] == left).all() and (made.alpha[:, 170:] == right).all()
            )
    assert scene.state == "missing" and made is frame, "without a mask the whole restyled picture leaves as it is"


def test_the_uses_are_a_choice() -> None:
    from bridge.table import TABLE

    use = next(control for control in TABLE.controls if control.name == "mask_use")
    with pytest.raises(ControlError, match="one of off, inside, outside, alpha"):
        use.coerce("sideways")
    assert use.coerce("Inside") == "inside" and use.coerce(2) == "outside" and use.coerce("alpha") == "alpha"


def test_only_a_person_mask_asks_for_people() -> None:
    inside = MaskControls(mask_source="person-chroma", mask_use="inside")
    assert inside.person and inside.active
    assert not dataclasses.replace(inside, mask_use="off").person, "nobody needs it"
    assert dataclasses.replace(inside, mask_use="off", mask_view=True).person
    assert not dataclasses.replace(inside, mask_source="chroma").person
    assert not dataclasses.replace(inside, mask_source="off", mask_view=True).active
