"""The stage that moves restyled pictures on to what the input shows now, on pictures whose motion is known."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from bridge.control.values import Snapshot
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.stages import reproject
from bridge.pipeline.stages.base import Context
from bridge.pipeline.stages.reproject import LONGEST_NS, Reproject
from bridge.pipeline.stages.reproject_controls import REPROJECTION, ReprojectControls
from engine.frame import Frame

WIDTH, HEIGHT = 256, 144
MS = 1_000_000
PERIOD = 33 * MS


def texture(seed: int) -> np.ndarray:
    """A large picture with soft and hard edges, float32 [3 H, 3 W, 3] in 0..255."""
    rng = np.random.default_rng(seed)
    large = np.zeros((3 * HEIGHT, 3 * WIDTH, 3), np.float32)
    for _ in range(400):
        x, y, radius = (int(v) for v in rng.integers((0, 0, 6), (3 * WIDTH, 3 * HEIGHT, 30)))
        cv2.circle(large, (x, y), radius, [float(v) for v in rng.integers(0, 255, 3)], -1, cv2.LINE_AA)
    return large


TEXTURE = texture(1)


def scene(shift: float, of: np.ndarray = TEXTURE) -> np.ndarray:
    """The texture, moved to the right by so many pixels."""
    places = np.float32([[1, 0, shift - WIDTH], [0, 1, -HEIGHT]])
    return cv2.warpAffine(of, places, (WIDTH, HEIGHT)).astype(np.uint8)


def negative(pixels: np.ndarray) -> np.ndarray:
    """The style of these tests: it moves with the picture."""
    return 255 - pixels


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests show many frames of the input at once."""
    monkeypatch.setattr(reproject, "FOLLOWED", 1000)


class Stage:
    """Input frames and restyled frames, one after the other."""

    def __init__(self, amount: float = 1.0) -> None:
        self.stage, self.history = Reproject(), FrameHistory()
        self.amount = amount
        self.count = 0

    def sees(self, *pictures: np.ndarray) -> list[Frame]:
        """New frames of the input, `PERIOD` apart."""
        frames = []
        for pixels in pictures:
            self.count += 1
            frames.append(Frame(pixels, captured_ns=self.count * PERIOD, seq=self.count))
            self.history.add(frames[-1])
        return frames

    def shows(self, restyled: Frame, wet: bool = True) -> Frame:
        """What a tick makes of a frame."""
        controls = Snapshot([ReprojectControls(reproject=self.amount)])
        context = Context(self.count * PERIOD, self.history, controls, wet, (WIDTH, HEIGHT))
        (made,) = self.stage.process(restyled, context)
        return made

    @property
    def state(self) -> str:
        return str(self.stage.readings()[REPROJECTION.name])


def restyle(frame: Frame, how: Callable[[np.ndarray], np.ndarray] = negative) -> Frame:
    return Frame(how(frame.pixels), captured_ns=frame.captured_ns, seq=frame.seq)


def db(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio away from the edges, where the picture comes from outside."""
    inner = np.s_[8:-8, 40:-8]
    return float(cv2.PSNR(np.ascontiguousarray(one[inner]), np.ascontiguousarray(other[inner])))


@pytest.mark.parametrize("age", [1, 2, 4])
@pytest.mark.parametrize("speed", [2.0, 6.5])
def test_a_late_picture_shows_things_where_they_are_now(age: int, speed: float) -> None:
    stage = Stage()
    frames = stage.sees(*(scene(n * speed) for n in range(age + 1)))
    late = restyle(frames[0])
    made, now = stage.shows(late), negative(frames[-1].pixels)
    assert db(made.pixels, now) > db(late.pixels, now) + 6.0
    assert db(made.pixels, now) > 22.0
    assert (made.captured_ns, made.moved_ns) == (late.captured_ns, frames[-1].captured_ns)
    assert stage.state == "on"


def test_the_control_says_how_much_of_the_lag_is_made_up_for() -> None:
    shown = {}
    for amount in (0.0, 0.5, 1.0):
        stage = Stage(amount)
        frames = stage.sees(*(scene(4.0 * n) for n in range(5)))
        made = stage.shows(restyle(frames[0]))
        shown[amount] = max(range(5), key=lambda n: db(made.pixels, negative(frames[n].pixels)))
        assert made.shows_ns == frames[shown[amount]].captured_ns
        assert stage.state == ("on" if amount else "off")
    assert shown == {0.0: 0, 0.5: 2, 1.0: 4}


def test_it_leaves_the_picture_alone_that_is_not_restyled_or_not_late() -> None:
    stage = Stage()
    frames = stage.sees(*(scene(4.0 * n) for n in range(3)))
    assert stage.shows(frames[0], wet=False) is frames[0]
    newest = restyle(frames[-1])
    assert np.array_equal(stage.shows(newest).pixels, newest.pixels)
    unknown = Frame(newest.pixels, captured_ns=99 * PERIOD, seq=99)
    assert stage.shows(unknown) is unknown and stage.state == "no input"


@pytest.mark.parametrize("what", ["cut", "strobe", "dark"])
def test_over_a_cut_and_in_a_flash_the_last_picture_is_kept(what: str) -> None:
    stage = Stage()
    frames = stage.sees(*(scene(4.0 * n) for n in range(3)))
    late = restyle(frames[0])
    before = stage.shows(late)
    sudden = {
        "cut": scene(0.0, texture(2)),
        "strobe": np.minimum(scene(12.0).astype(np.int32) + 150, 255).astype(np.uint8),
        "dark": scene(12.0) // 8,
    }[what]
    stage.sees(*[sudden] * 3)
    held = stage.shows(late)
    assert np.array_equal(held.pixels, before.pixels) and held.moved_ns == before.moved_ns
    assert stage.state == "held"
    if what != "cut":
        again = stage.sees(scene(16.0))[0]
        after = stage.shows(late)
        assert stage.state == "on" and after.moved_ns == again.captured_ns


def test_a_new_picture_after_a_cut_is_not_mixed_with_the_old_scene() -> None:
    stage = Stage()
    old = stage.sees(*(scene(4.0 * n) for n in range(3)))
    stage.shows(restyle(old[0]))
    other = texture(2)
    new = stage.sees(*(scene(4.0 * n, other) for n in range(3)))
    made = stage.shows(restyle(new[0]))
    assert db(made.pixels, negative(new[-1].pixels)) > 22.0


def test_a_new_picture_is_blended_in_over_two_ticks() -> None:
    stage = Stage()
    frames = stage.sees(*(scene(3.0 * n) for n in range(5)))
    stage.shows(restyle(frames[0]))
    darker = restyle(frames[2], lambda pixels: negative(pixels) // 2)
    first, second = stage.shows(darker), stage.shows(darker)
    now = negative(frames[-1].pixels)
    inner = np.s_[20:-20, 60:-20]
    means = [float(np.mean(p[inner])) for p in (now, first.pixels, second.pixels)]
    assert means[2] == pytest.approx(means[0] / 2, rel=0.06)
    assert means[1] == pytest.approx(0.75 * means[0], rel=0.06), "half of each, both moved to now"


def test_a_look_that_is_fixed_to_the_screen_is_not_moved() -> None:
    dots = (np.indices((HEIGHT, WIDTH)).sum(0) // 3 % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, 2)

    def halftone(pixels: np.ndarray) -> np.ndarray:
        return cv2.addWeighted(dots, 0.9, pixels, 0.1, 0.0)

    stage = Stage()
    for n in range(12):
        frames = stage.sees(scene(3.5 * n))
        made = stage.shows(restyle(frames[0], halftone))
    assert stage.state == "pattern"
    assert np.array_equal(made.pixels, halftone(frames[0].pixels))
    for n in range(12, 40):  # another look: it moves again
        frames = stage.sees(scene(3.5 * n))
        made = stage.shows(restyle(frames[0]))
    assert stage.state == "on"


def test_a_picture_that_gets_too_old_stays_where_it_was_moved_last() -> None:
    stage = Stage()
    late = restyle(stage.sees(scene(0.0))[0])
    for n in range(1, LONGEST_NS // PERIOD + 12):
        stage.sees(scene(0.5 * n))
        made = stage.shows(late)
    assert abs(made.moved_ns - late.captured_ns - LONGEST_NS) <= PERIOD


def test_what_was_covered_is_no_smear() -> None:
    """A square moves over a still background: beside it, where it was, the background stays what it is."""

    def picture(left: int) -> np.ndarray:
        pixels = scene(0.0).copy()
        pixels[50:100, left : left + 40] = (250, 20, 20)
        return pixels

    stage = Stage()
    frames = stage.sees(*(picture(60 + 6 * n) for n in range(4)))
    made = stage.shows(restyle(frames[0])).pixels.astype(np.int32)
    now = negative(frames[-1].pixels).astype(np.int32)
    square = np.s_[56:94, 60 + 18 + 6 : 60 + 18 + 34]
    assert np.abs(made[square] - now[square]).mean() < 12.0, "the square is where it is now; unmoved it would be 44"
    far = np.s_[50:100, 150:240]
    assert np.abs(made[far] - now[far]).mean() < 2.0, "the background has not moved"


def test_a_figure_that_runs_is_followed_over_eight_frames() -> None:
    """Twelve pixels a frame: a search over all 96 at once would find nothing."""

    def picture(left: int) -> np.ndarray:
        pixels = np.ascontiguousarray(cv2.resize(scene(0.0), (512, 288)))
        pixels[80:240, left : left + 60] = texture(9)[100:260, 100:160]
        return pixels

    def edges(pixels: np.ndarray) -> list[float]:
        """Where the figure begins and ends: its own brightness is above the background's."""
        bright = pixels[100:220].astype(np.float32).mean((0, 2))
        return [float(np.abs(np.diff(bright))[at:to].argmax() + at) for at, to in ((130, 180), (190, 240))]

    def figure(left: int) -> np.ndarray:
        """Its restyled picture: a white figure on black, without texture."""
        pixels = np.zeros((288, 512, 3), np.uint8)
        pixels[80:240, left : left + 60] = 255
        return pixels

    stage = Stage()
    frames = stage.sees(*(picture(60 + 12 * n) for n in range(9)))
    late = restyle(frames[0], lambda _: figure(60))
    made = stage.shows(late)
    assert made.moved_ns == frames[-1].captured_ns
    for found, wanted in zip(edges(made.pixels), edges(figure(156)), strict=True):
        assert abs(found - wanted) <= 4.0


def test_when_it_is_switched_on_it_catches_up_within_some_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    stage = Stage()
    frames = stage.sees(*(scene(2.0 * n) for n in range(10)))
    late = restyle(frames[0])
    shown = [stage.shows(late).moved_ns for _ in range(4)]
    assert shown == [frames[3].captured_ns, frames[7].captured_ns, *[frames[9].captured_ns] * 2]


def test_small_pictures_and_restarted_numbers_do_no_harm() -> None:
    stage = Stage()
    tiny = [Frame(np.full((16, 16, 3), 10 * n, np.uint8), captured_ns=n * PERIOD, seq=n) for n in (1, 2)]
    for frame in tiny:
        stage.history.add(frame)
    late = restyle(tiny[0])
    assert stage.shows(late) is late and stage.state == "no input"
    stage.stage.reset()
    stage.history.forget()
    frames = stage.sees(*(scene(4.0 * n) for n in range(3)))
    assert db(stage.shows(restyle(frames[0])).pixels, negative(frames[-1].pixels)) > 22.0
