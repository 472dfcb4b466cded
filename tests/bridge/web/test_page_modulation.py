"""Modulators on the page, in a real browser: the moving mark, and the dialog by mouse, finger and keyboard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from bridge.control.modulation.modulator import NAMES
from bridge.control.modulation.service import Modulation
from bridge.control.origin import Origin, Trust
from bridge.control.signals import Signals
from bridge.control.tempo.state import Line, Tempo
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

FADER = "[data-control=strength]"
OPEN = "document.getElementById('modulator').open"
TITLE = "document.getElementById('mod-title').textContent"
MARK = f"document.querySelector('{FADER} .modulated')"
ROWS = """JSON.stringify([...document.querySelectorAll(".mods button:not([hidden])")].map((e) =>
[...e.children].map((c) => c.textContent)))"""
PLACES = """JSON.stringify(["[data-control=strength]", "#panel-modulation", ".mods", "#panel-video", "#panic"].map(
(s) => { const b = document.querySelector(s).getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }))"""
SHOW = Origin("snapshot", Trust.OPERATOR)


@pytest.fixture(scope="module")
def modulation(stage: Stage) -> Iterator[Signals]:
    signals, tempo = Signals(), Tempo(line=Line(float(time.monotonic_ns()), 0.0, 120.0))
    running = Modulation(stage.store, stage.telemetry, signals, lambda: tempo).start()
    yield signals
    running.stop()


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage, modulation: Signals) -> Iterator[Tab]:
    stage.store.handle("/tidecast/mod/clear", [])
    stage.store.set("strength", 0.5)
    width, height, mobile = request.param
    ready = "window.tidecast && tidecast.state.online && tidecast.state.values.mod_1 === ''"
    with browser.page(stage.web.url, ready, size=(width, height), mobile=mobile) as tab:
        yield tab


def text(stage: Stage, number: int = 1) -> str:
    found: str = stage.store.snapshot.value(f"mod_{number}")
    return found


def field(page: Tab, name: str, value: str, event: str = "change") -> None:
    page.js(
        f"(() => {{ const e = document.getElementById('mod-{name}'); e.value = {json.dumps(value)};"
        f" e.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})()"
    )


def test_a_right_click_opens_the_dialog_that_sets_it(page: Tab, stage: Stage) -> None:
    x, y, width, height = page.box(FADER)
    before = page.js(PLACES)
    point = {"x": x + width / 2, "y": y + height / 2, "button": "right", "clickCount": 1}
    page.call("Input.dispatchMouseEvent", type="mousePressed", **point)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", **point)
    page.until(OPEN)
    assert page.js(TITLE) == "Modulate Strength"
    offered = page.js("JSON.stringify([...document.querySelectorAll('#mod-shape option')].map((o) => o.value))")
    assert json.loads(offered) == ["", *NAMES]
    field(page, "shape", "square")
    wait(lambda: text(stage) == "strength square", "the modulator")
    field(page, "depth", "0.4", "input")
    field(page, "rate", "2")
    wait(lambda: text(stage) == "strength square beats=2 depth=0.4", "its keys")
    field(page, "unit", "hz")
    wait(lambda: text(stage) == "strength square hz=2 depth=0.4", "its unit")
    field(page, "rate", "none")
    assert page.js("document.getElementById('mod-say').textContent") == "A cycle is a number above 0."
    field(page, "shape", "follow")
    wait(lambda: text(stage) == "strength follow depth=0.4 source=audio/level", "a follower")
    field(page, "signal", "volume")
    page.until("document.getElementById('mod-say').textContent.includes('source')")
    assert text(stage) == "strength follow depth=0.4 source=audio/level", "refused"
    field(page, "signal", "osc/live/volume")
    wait(lambda: text(stage) == "strength follow depth=0.4 source=osc/live/volume", "mended")
    page.js("document.getElementById('mod-off').click()")
    wait(lambda: text(stage) == "", "off")
    page.until(f"!{OPEN}")
    page.until(f"{ROWS} === '[]'")
    assert page.js(PLACES) == before, "nothing moved"


def test_the_mark_moves_and_the_fader_keeps_the_base(page: Tab, stage: Stage) -> None:
    assert page.js(f"{MARK}.hidden")
    stage.store.set("mod_2", "strength square hz=1.5 depth=0.4 slew=1", SHOW)
    at = f"Number(document.querySelector('{FADER}').style.getPropertyValue('--moved'))"
    for value in (0.7, 0.3):
        page.until(f"!{MARK}.hidden && Math.abs({at} - {value}) < 0.001", f"the mark at {value}")
    assert page.js(f"document.querySelector('{FADER} output').textContent") == "0.50"
    assert page.js(f"getComputedStyle(document.querySelector('{FADER}')).getPropertyValue('--at')") == "0.5"
    page.until(f'{ROWS} === \'[["Strength","square · 1.5 Hz"]]\'')
    stage.store.set("mod_2", "", SHOW)
    page.until(f"{MARK}.hidden && {ROWS} === '[]'")


def test_a_finger_that_rests_opens_it_and_one_that_moves_does_not(page: Tab, stage: Stage) -> None:
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    x, y, width, height = page.box(FADER)
    page.touch((x + width / 2, y + height / 2), (x + width / 2 + 20, y + height / 2), lift=False)
    time.sleep(0.8)
    assert not page.js(OPEN)
    page.touch()
    page.touch((x + width / 2, y + height / 2), lift=False)
    page.until(OPEN)
    page.touch()
    assert page.js(OPEN) and page.js(TITLE) == "Modulate Strength"
    page.key("Escape", "Escape", 27)
    page.until(f"!{OPEN}")


def test_the_keyboard_alone_sets_and_ends_it(page: Tab, stage: Stage) -> None:
    page.js("document.getElementById('w-strength').focus()")
    page.key("m", "KeyM")
    page.until(OPEN)
    assert page.js("document.activeElement.closest('dialog') !== null")
    page.js("document.getElementById('mod-shape').focus()")
    page.key("ArrowDown", "ArrowDown", 40)
    wait(lambda: text(stage) == "strength sine", "the shape")
    page.js("document.getElementById('mod-depth').focus()")
    page.key("ArrowRight", "ArrowRight", 39)
    wait(lambda: text(stage) == "strength sine depth=0.51", "the depth")
    page.key("Escape", "Escape", 27)
    page.until(f"!{OPEN}")
    page.js("document.querySelector('.mods button:not([hidden])').click()")
    page.until(OPEN)
    page.js("document.getElementById('mod-off').focus()")
    page.key("Enter")
    wait(lambda: text(stage) == "", "off")


def test_what_cannot_be_modulated_says_so(page: Tab, stage: Stage) -> None:
    page.js("document.querySelector('[data-control=tempo_bpm]').dispatchEvent(new Event('modulate', {bubbles: true}))")
    page.until("document.querySelector('#alert span').textContent.includes('cannot be modulated')")
    assert not page.js(OPEN)
