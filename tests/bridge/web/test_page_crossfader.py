"""The pad of the four prompts under a mouse, a finger and the keyboard: taps, double taps, and what it snaps to."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

ALIKE = [0.25] * 4


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Tab]:
    stage.store.set_many({"weight_1": 1.0, "weight_2": 0.0, "weight_3": 0.0, "weight_4": 0.0, "prompt_seconds": 0.5})
    ready = "window.tidecast && tidecast.state.online && tidecast.state.values.weight_1 === 1"
    width, height, mobile = request.param
    with browser.page(stage.web.url, ready, size=(width, height), mobile=mobile) as tab:
        yield tab


def weights(stage: Stage) -> list[float]:
    return [stage.store.snapshot.value(f"weight_{n}") for n in range(1, 5)]


def tap(page: Tab, x: float, y: float, times: int = 1) -> None:
    """Tap the pad with a finger at a point given as shares of its size, once or twice."""
    time.sleep(0.4)  # two taps further apart than this are not a double tap
    left, top, width, height = page.box("#pad")
    first = time.time()
    for n in range(times):
        page.touch((left + x * width, top + y * height), at=first + 0.1 * n)


def test_a_tap_travels_and_a_double_tap_goes_to_the_centre(page: Tab, stage: Stage) -> None:
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    tap(page, 0.88, 0.12)
    wait(lambda: weights(stage) == [0, 1, 0, 0], "the corner that is near")
    tap(page, 0.5, 0.88)
    wait(lambda: weights(stage) == [0, 0, 0.5, 0.5], "the middle of an edge")
    tap(page, 0.3, 0.7)
    wait(lambda: weights(stage)[2] not in (0, 0.25, 0.5), "between them nothing catches it")
    tap(page, 0.12, 0.12, 2)
    wait(lambda: weights(stage) == ALIKE, "the centre")


def test_without_travel_time_a_tap_is_no_cut_and_the_rest_works(page: Tab, stage: Stage) -> None:
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    stage.store.set("prompt_seconds", 0.0)
    page.until("tidecast.state.values.prompt_seconds === 0")
    heard: list[str] = []
    unlisten = stage.store.listen(lambda name, value, origin: heard.append(name))
    tap(page, 0.88, 0.88)
    page.js("document.getElementById('pad').focus()")
    page.key("ArrowRight", "ArrowRight", 39)
    wait(lambda: weights(stage)[1] == pytest.approx(0.05), "the key after the tap, from where the puck was")
    assert set(heard) <= {f"weight_{n}" for n in range(1, 5)} and weights(stage)[3] == 0, "the tap changed nothing"
    unlisten()
    tap(page, 0.88, 0.88, 2)
    wait(lambda: weights(stage) == ALIKE, "the centre")
    x, y, width, _ = page.box("#pad")
    far = 0.5 * (width - 40)
    page.touch((x + 30, y + 30), (x + 36, y + 30), (x + 30 + far, y + 30 + far))
    wait(lambda: weights(stage) == [0, 0, 0, 1], "as far as the finger moved, from the centre")


def test_a_drag_is_caught_near_a_stop_and_only_there(page: Tab, stage: Stage) -> None:
    x, y, width, _ = page.box("#pad")
    way = width - 40
    page.mouse("mousePressed", x + 30, y + 30)
    page.mouse("mouseMoved", x + 30 + 0.51 * way, y + 30 + 0.02 * way)
    wait(lambda: weights(stage) == [0.5, 0.5, 0, 0], "the middle of the upper edge")
    page.mouse("mouseMoved", x + 30 + 0.6 * way, y + 30 + 0.1 * way)
    want = [0.4 * 0.9, 0.6 * 0.9, 0.4 * 0.1, 0.6 * 0.1]
    wait(lambda: np.allclose(weights(stage), want, atol=0.02), "free again")
    page.mouse("mouseReleased", x + 30 + 0.6 * way, y + 30 + 0.1 * way)


def test_the_keyboard_goes_to_the_centre_and_the_help_says_so(page: Tab, stage: Stage) -> None:
    page.js("document.getElementById('pad').focus()")
    page.key("Enter")
    wait(lambda: weights(stage) == ALIKE, "the centre")
    page.key("ArrowUp", "ArrowUp", 38)
    wait(lambda: weights(stage)[0] > 0.27, "a step up")
    assert "go to the centre" in page.js("document.getElementById('keys').textContent")
