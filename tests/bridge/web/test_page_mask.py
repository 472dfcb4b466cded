"""The mask on the page, in a real browser: its controls, the colour from the picture, what it says, and errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.pipeline.mask.controls import SOURCES
from bridge.pipeline.mask.person import MISSING
from bridge.pipeline.mask.stage import Mask
from tests.bridge.web.test_page import PLACES
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

READY = "window.tidecast && tidecast.state.online && tidecast.drawn.input + tidecast.drawn.output > 2"
NOTE = "document.getElementById('mask-note').textContent"


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Tab]:
    stage.store.set_many({"mask_source": "off", "mask_use": "off", "mask_view": False, "mask_key": "#00b140"})
    stage.store.set_many({"mask_input": "", "mask_background_input": "", "mask_background": "input"})
    stage.telemetry.update(mask_state="off", mask_area=0.0, given_up="", alpha_state="off", mask_input="")
    width, height, mobile = request.param
    with browser.page(stage.web.url, READY, "the first pictures", size=(width, height), mobile=mobile) as tab:
        yield tab


def held(stage: Stage, name: str, value: object) -> None:
    wait(lambda: stage.store.snapshot.value(name) == value, f"{name} is {value}")


def test_it_is_set_up_by_buttons_and_says_what_it_does_and_nothing_moves(page: Tab, stage: Stage) -> None:
    page.js("document.getElementById('panel-mask').scrollIntoView()")
    before = page.js(PLACES)
    assert page.js(NOTE).startswith("Choose a source")
    page.js(
        "[...document.querySelectorAll('[data-control=mask_source] button')]"
        f".find((b) => b.textContent === '{SOURCES[1]}').click()"
    )
    held(stage, "mask_source", "person")
    stage.store.set("mask_use", "inside")
    page.until(f"{NOTE}.startsWith('The input is shown')")
    stage.telemetry.update(mask_state="on", mask_area=0.234)
    page.until(f"{NOTE} === 'It covers 23 % of the picture.'")
    page.js("document.querySelector('[data-control=mask_view] button').click()")
    held(stage, "mask_view", True)
    page.until(f"{NOTE}.startsWith('The output shows the matte.')")
    assert page.js("document.getElementById('mask-note').classList.contains('amber')"), "everybody sees the matte"
    stage.store.set_many({"mask_use": "alpha", "mask_view": False})
    stage.telemetry.update(alpha_state="left out")
    page.until(f"{NOTE}.startsWith('The picture is cut out, but Output alpha')")
    stage.telemetry.update(alpha_state="straight")
    page.until(f"{NOTE} === 'It covers 23 % of the picture.'")
    assert not page.js("document.getElementById('mask-note').classList.contains('amber')")
    stage.telemetry.update(mask_state="missing", given_up="refinement of the matte")
    page.until(f"{NOTE}.startsWith('No person mask comes.')")
    stage.store.set_many({"mask_source": "person-input", "mask_use": "inside", "mask_background": "second"})
    page.until(f"{NOTE}.startsWith('No person mask or no picture for the matte or no picture for the background')")
    page.until("!document.querySelector('[data-control=mask_refine] .omitted').hidden")
    assert page.js(PLACES) == before
    assert page.js("document.getElementById('mask-note').scrollHeight <= 51"), "all of it is seen"


def test_the_page_knows_the_words_of_the_stage(page: Tab, stage: Stage) -> None:
    made = Mask()
    made._refines = True  # only what is at work can be given up
    stage.telemetry.update(given_up=made.give_up())
    page.until("!document.querySelector('[data-control=mask_refine] .omitted').hidden")


def test_the_key_colour_is_picked_from_the_picture_of_the_input(page: Tab, stage: Stage) -> None:
    pick = "[data-control=mask_key] button"
    pressed = f"document.querySelector('{pick}').getAttribute('aria-pressed') === 'true'"
    page.js("tidecast.look('output')")
    page.js(f"document.querySelector('{pick}').click()")
    page.until(pressed)
    assert page.js("document.getElementById('views').dataset.view") == "split", "the input must be seen"
    page.key("Escape", number=27)
    page.until(f"!({pressed})")
    page.until("tidecast.drawn.input > 2", "the input is on the page")
    page.click("#canvas-input")
    assert stage.store.snapshot.value("mask_key") == "#00b140", "nothing is picked after that"
    page.js(f"document.querySelector('{pick}').click()")
    page.until(pressed)
    page.click("#canvas-input")
    wait(lambda: stage.store.snapshot.value("mask_key") != "#00b140", "a colour is picked")
    red, green, blue = bytes.fromhex(stage.store.snapshot.value("mask_key")[1:])
    assert max(red, green, blue) - min(red, green, blue) <= 4, "the test picture is grey"
    page.until(f"!({pressed})", "one press is one colour")
    shown = "document.querySelector('[data-control=mask_key] input[type=color]').value"
    page.until(f"{shown} === '{stage.store.snapshot.value('mask_key')}'")


def test_the_place_of_the_picked_colour_is_that_of_the_pointer(page: Tab, stage: Stage) -> None:
    """The test picture moves, so the colour at one place changes: it is looked at until two different ones came."""
    page.js("tidecast.look('input')")
    page.until("tidecast.drawn.input > 2", "the input is on the page")
    found = set()

    def once() -> bool:
        page.js("document.querySelector('[data-control=mask_key] button').click()")
        expected = page.js(
            "(() => { const c = document.getElementById('canvas-input'), b = c.getBoundingClientRect(),"
            " s = Math.min(b.width / c.width, b.height / c.height), x = b.x + b.width / 2 + 0.3 * c.width * s,"
            " y = b.y + b.height / 2 - 0.3 * c.height * s;"
            " const [px, py] = [Math.round(0.8 * c.width) - 2, Math.round(0.2 * c.height) - 2];"
            " const d = c.getContext('2d').getImageData(px, py, 5, 5).data;"
            " let sum = 0; for (let i = 0; i < d.length; i += 4) sum += d[i];"
            " c.dispatchEvent(new PointerEvent('pointerdown', {clientX: x, clientY: y, bubbles: true}));"
            " return sum / 25; })()"
        )
        page.until("tidecast.state.values.mask_key !== '#00b140'")
        value = int(page.js("tidecast.state.values.mask_key")[1:3], 16)
        found.add(round(expected) // 40)
        assert abs(value - expected) <= 6, (value, expected)
        wait(lambda: stage.store.snapshot.value("mask_key") != "#00b140", "the store has it")
        stage.store.set("mask_key", "#00b140")
        page.until("tidecast.state.values.mask_key === '#00b140'")
        return len(found) >= 2

    wait(once, "two different colours")


def test_second_inputs_are_typed_or_chosen_from_what_can_be_seen_and_say_what_is_connected(
    page: Tab, stage: Stage
) -> None:
    page.js("document.getElementById('w-mask_input').scrollIntoView({block: 'center'})")
    before = page.js(PLACES)
    page.until("document.querySelectorAll('#seen-mask_input option').length >= 2", "sources are offered")
    box = "document.getElementById('w-mask_input')"
    offered = page.js(f"{box}.list.options[0].value")
    page.js(f"{box}.focus({{preventScroll: true}})")
    page.type(offered)
    page.key("Enter", number=13)
    held(stage, "mask_input", offered)
    stage.telemetry.update(mask_input="Depth 640x480")
    now = f"{box}.closest('.source').querySelector('.now').textContent"
    page.until(f"{now} === 'Connected: Depth 640x480'")
    page.js(f"{box}.value = 'teapot:1'; {box}.dispatchEvent(new Event('change')); void 0")
    say = f"{box}.closest('.source').querySelector('.say').textContent"
    page.until(f"{say}.includes('teapot')")
    assert page.js(f"{box}.value") == "teapot:1" and stage.store.snapshot.value("mask_input") == offered
    assert page.js(PLACES) == before, "nothing has moved"
    stage.telemetry.error("/tidecast/mask/background/input", "No picture comes for the background.")
    other = "document.getElementById('w-mask_background_input').closest('.source')"
    page.until(f"{other}.querySelector('.say').textContent.startsWith('No picture comes')")
    browse = f"{other}.querySelector('button')"
    assert page.js(f"{browse}.getAttribute('aria-label')") == "Rest input: browse"
    page.js(f"{browse}.click()")
    page.until("document.getElementById('files').open")
    page.js("document.getElementById('files').close()")


def test_errors_of_the_mask_stand_in_its_panel(page: Tab, stage: Stage) -> None:
    page.js("document.getElementById('panel-mask').scrollIntoView()")
    stage.telemetry.error("mask", MISSING.format(5))
    page.until("document.querySelector('#panel-mask .say').textContent.startsWith('No person mask has come')")
    box = "document.getElementById('w-mask_key')"
    page.js(f"{box}.value = 'green'; {box}.dispatchEvent(new Event('change')); void 0")
    page.until("document.querySelector('#panel-mask .say').textContent.includes('#00b140')")
    assert page.js(f"{box}.value") == "green", "what is refused can be mended"
