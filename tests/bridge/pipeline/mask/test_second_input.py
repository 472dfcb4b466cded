"""Second inputs of the mask on a real capture thread: what is made of their pictures, and what when they fail."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridge.app import App
from bridge.config_file import load
from bridge.control.origin import Origin, Trust
from bridge.pipeline.input_policy import RESTRICTED
from bridge.pipeline.mask import second_input
from bridge.pipeline.mask.controls import MaskControls
from bridge.pipeline.mask.timeline import KEPT, LOST_NS, Pictures
from bridge.table import TABLE
from bridge.video.address import check_choice
from bridge.video.base import SourceInfo
from engine.control import PREFIX
from engine.frame import Frame, PixelFormat
from tests.support.capture_rig import HEIGHT, WIDTH, CaptureRig

MATTE, BEHIND = PREFIX + "/mask/input", PREFIX + "/mask/background/input"


class Rig(CaptureRig):
    """Looks at the pictures of the second inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = [SourceInfo("pattern:counter", "Counter"), SourceInfo("pattern:waves", "Waves")]

    @property
    def mattes(self) -> Pictures:
        return self.capture.history.matte_input

    def newest(self, pictures: Pictures | None = None) -> np.ndarray | None:
        now = time.monotonic_ns()
        found = (self.mattes if pictures is None else pictures).at(now, now)
        return None if found is None else found.pixels

    def fresh(self) -> np.ndarray:
        """A matte that was received from now on."""
        began = time.monotonic_ns()
        self.until(lambda: self.mattes.last_ns > began, "no matte comes")
        found = self.newest()
        assert found is not None
        return found

    @property
    def readings(self) -> dict[str, str]:
        return self.capture.second.readings()


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig().running() as made:
        yield made


def picture(path: Path, alpha: bool) -> str:
    """A picture twice as wide as the canvas is for its height: its left quarter is white, the rest dark grey, and if it
    has alpha, its upper half is transparent."""
    pixels = np.full((HEIGHT, 2 * HEIGHT, 4), 40, np.uint8)
    pixels[:, : HEIGHT // 2] = 255
    pixels[..., 3] = 255
    if alpha:
        pixels[: HEIGHT // 2, :, 3] = 0
    Image.fromarray(pixels if alpha else pixels[..., :3]).save(path)
    return f"file:{path}"


def test_its_brightness_is_the_matte_fitted_and_mirrored_like_the_input(rig: Rig, tmp_path: Path) -> None:
    rig.store.set_many({"mask_input": picture(tmp_path / "a.png", alpha=False), "fit": "stretch"})
    found = rig.fresh()
    assert found.shape == (HEIGHT, WIDTH) and found.dtype == np.uint8
    assert (found[:, :14] == 255).all() and (found[:, 18:] == 40).all()
    rig.store.set("mirror", True)
    rig.until(lambda: (rig.fresh()[:, 50:] == 255).all(), "not mirrored")
    rig.store.set_many({"mirror": False, "fit": "contain"})
    rig.until(lambda: not rig.fresh()[:6].any(), "bars do not belong to the matte")
    rig.store.set("fit", "cover")
    rig.until(lambda: (rig.fresh()[:, :6] == 255).all() and (rig.fresh()[:, 12:] == 40).all(), "not cropped")


def test_a_transparent_picture_gives_its_alpha(rig: Rig, tmp_path: Path) -> None:
    rig.store.set_many({"mask_input": picture(tmp_path / "a.png", alpha=True), "fit": "stretch"})
    found = rig.fresh()
    assert not found[:22].any() and (found[26:] == 255).all()


def test_alpha_stays_the_matte_of_a_source_that_is_opaque_for_a_moment() -> None:
    rig = Rig()
    matte, _ = rig.capture.second.inputs
    rig.capture.history.add(Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    pixels = np.full((HEIGHT, WIDTH, 4), 90, np.uint8)
    levels = []
    for alpha in (255, 7, 255):
        pixels[..., 3] = alpha
        matte._take(Frame(pixels.copy(), PixelFormat.RGBA, captured_ns=len(levels) + 1))
        made = rig.mattes.at(len(levels) + 1, 0)
        assert made is not None
        levels.append(int(made.pixels[5, 5]))
    assert levels == [90, 7, 255]


def test_both_are_read_as_they_are_chosen_and_closed_when_they_are_not(rig: Rig) -> None:
    behind = rig.capture.history.background_input
    assert rig.store.handle(MATTE, ["1"]) and rig.store.handle(BEHIND, ["pattern:counter"])
    rig.until(lambda: rig.newest() is not None and rig.newest(behind) is not None, "no pictures")
    shown = rig.newest(behind)
    assert shown is not None and shown.shape == (HEIGHT, WIDTH, 3)
    assert "waves" in rig.readings["mask_input"] and "counter" in rig.readings["mask_background_input"]
    rig.store.set_many({"mask_input": "", "mask_background_input": ""})
    rig.until(lambda: rig.newest() is None and rig.newest(behind) is None, "still there")
    names = ("input pattern:waves", "input pattern:counter")
    rig.until(lambda: not any(thread.name in names for thread in threads()), "not closed")
    assert set(rig.readings.values()) == {""} and rig.told == []


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.is_alive()]


def test_a_poisoned_address_leaves_the_old_one_or_none_and_is_reported(rig: Rig) -> None:
    refused: list[tuple[str, str]] = []
    rig.store.listen_errors(lambda *error: refused.append(error))
    assert not rig.store.handle(MATTE, ["teapot:1"]) and not rig.store.handle(MATTE, ["window:1"])
    assert [at for at, _ in refused] == [MATTE, MATTE] and rig.store.snapshot.value("mask_input") == ""
    assert rig.store.handle(MATTE, ["file:/there/is/none.png"])
    rig.until_told("none.png", MATTE)
    assert rig.newest() is None and rig.readings["mask_input"] == ""
    rig.store.set("mask_input", "pattern:waves")
    rig.fresh()
    rig.told.clear()
    assert rig.store.handle(MATTE, ["file:/there/is/none.png"])
    rig.until_told("none.png", MATTE)
    rig.fresh()
    assert "waves" in rig.readings["mask_input"]
    rig.goes_on()


def test_whatever_it_does_the_input_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.endpoints.endpoint_thread.HANG_S", 0.2)
    rig.store.set_many({"mask_input": "bad:open hangs", "mask_background_input": "bad:read"})
    rig.until_told("has not answered", MATTE)
    rig.until_told("a defect in read", BEHIND)
    rig.goes_on()
    rig.store.set("mask_input", "pattern:waves")
    rig.fresh()
    assert rig.capture.info is not None and rig.capture.info.uri == "pattern:bars"


def test_what_is_missing_is_said_once_with_what_to_do_only_while_it_is_needed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_input, "MISSING_NS", 100_000_000)
    monkeypatch.setattr(second_input, "LOST_NS", 50_000_000)
    rig.store.set_many({"mask_source": "input", "mask_use": "inside"})
    rig.until_told(f"choose one at {MATTE}", MATTE)
    assert "whole picture" in rig.capture.second.trouble
    rig.store.set("mask_input", "null:")
    rig.until_told("No picture comes for the matte", MATTE)
    rig.goes_on()
    assert sum("No picture" in text for _, text in rig.told) == 1
    rig.store.set("mask_input", "pattern:waves")
    rig.until(lambda: rig.capture.second.trouble == "", "it works")
    rig.store.set_many({"mask_background": "second", "mask_background_input": "null:"})
    rig.until_told("No picture comes for the background", BEHIND)
    rig.store.set("mask_use", "off")
    rig.until(lambda: rig.capture.second.trouble == "", "nobody needs it")


def test_nothing_remains_after_the_end(tmp_path: Path) -> None:
    def descriptors() -> set[str]:
        return set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()

    address = picture(tmp_path / "a.png", alpha=True)
    left = []
    for _ in range(2):  # what libraries open once and keep is open after the first time
        rig = Rig()
        rig.store.set_many({"mask_input": address, "mask_background_input": "pattern:waves"})
        rig.capture.start()
        rig.fresh()
        assert any(thread.name == f"input {address}"[:46] for thread in threads())
        rig.capture.stop()
        left.append(descriptors())
        assert not [thread for thread in threads() if thread.name.startswith(("input", "capture"))]
    assert left[0] == left[1]


def test_a_stranger_may_open_no_more_than_as_the_input() -> None:
    app = App(load(None, {"input.allow": ["file:/shows/tonight"]}))
    there = Origin("osc:10.0.0.7:5000", Trust.NETWORK)
    refused: list[tuple[str, str]] = []
    app.store.listen_errors(lambda *error: refused.append(error))
    for control in RESTRICTED:
        address = PREFIX + TABLE.by_name[control].address
        for uri in ("file:/etc/hostname", "camera:0", "screen:", "file:/shows/tonight/../x.png"):
            assert not app.store.handle(address, [uri], there)
            at, why = refused.pop()
            assert at == address and "may not choose" in why and app.store.snapshot.value(control) == ""
        assert app.store.handle(address, ["ndi:CAM"], there) and app.store.snapshot.value(control) == "ndi:CAM"
        assert app.store.handle(address, ["file:/shows/tonight/a.png"], there)


def test_every_control_that_takes_an_address_has_the_rule_of_inputs() -> None:
    assert {control.name for control in TABLE.controls if control.check is check_choice} == set(RESTRICTED)


def test_pictures_are_found_by_their_time_and_bounded() -> None:
    kept, one = Pictures(1 << 30), Pictures(0)
    for number in range(1, KEPT + 10):
        for pictures in (kept, one):
            pictures.add(number, np.full((2, 2), number, np.uint8))
    assert len(kept._pictures) == KEPT and len(one._pictures) == 1
    for asked, found in ((0, 10), (40, 40), (999, KEPT + 9)):
        picture = kept.at(asked, 0)
        assert picture is not None and picture.captured_ns == found
    assert kept.at(40, KEPT + 9 + LOST_NS) is not None and kept.at(40, KEPT + 10 + LOST_NS) is None
    few = Pictures(3 * 4)
    for number in range(9):
        few.add(number, np.zeros((2, 2), np.uint8))
    assert len(few._pictures) == 3
    kept.forget()
    assert kept.at(40, 0) is None and kept.last_ns == 0


def test_second_inputs_are_needed_only_while_they_show() -> None:
    def needs(**values: object) -> tuple[bool, bool]:
        controls = MaskControls(**{"mask_source": "input", "mask_use": "inside", **values})  # type: ignore[arg-type]
        return controls.needs_matte_input, controls.needs_background_input

    assert needs() == (True, False) and needs(mask_background="second") == (True, True)
    assert needs(mask_source="luma", mask_background="second") == (False, True)
    assert needs(mask_use="off", mask_background="second") == (False, False)
    assert needs(mask_use="off", mask_view=True, mask_background="second") == (True, False)
    assert needs(mask_source="person-input") == (True, False) and needs(mask_source="person") == (False, False)
