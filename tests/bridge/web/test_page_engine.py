"""The pickers of the model and its size on the page, in a real browser: choose, type, be refused, wait, fail."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bridge.process.engine.choice import EngineControls
from engine.models import registry
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

MODEL, SIZE = "[data-control=engine_model]", "[data-control=engine_size]"
MODELS, SIZES = "[aria-label=Models]", "[aria-label='Model sizes']"
NOW = f"document.querySelector('{MODEL}').closest('.picker').querySelector('.now').textContent"
PLACES = """JSON.stringify([".source", ...[...document.querySelectorAll(".picker")].flatMap((p) =>
[p, ...p.children]), "[data-control=mirror]", "#panel-video"].map((e) => { const b =
(typeof e === "string" ? document.querySelector(e) : e).getBoundingClientRect();
return [b.x, b.y - document.querySelector("#panel-video").getBoundingClientRect().y, b.width, b.height]; }))"""


def beside(control: str) -> str:
    return f"document.querySelector('{control}').closest('.picker').querySelector('.say').textContent"


def field(control: str) -> str:
    return f"document.querySelector('{control} input')"


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Tab]:
    stage.store.set_many({"engine_model": "ember", "engine_size": "256x256"})
    stage.telemetry.update(state="running", model="ember", model_size="256x256", message="")
    width, height, mobile = request.param
    ready = "window.tidecast && tidecast.state.online && tidecast.state.readings.model_size === '256x256'"
    with browser.page(stage.web.url, ready, size=(width, height), mobile=mobile) as tab:
        yield tab


def chosen(stage: Stage) -> tuple[str, str]:
    controls = stage.store.snapshot.of(EngineControls)
    return controls.engine_model, controls.engine_size


def typed(page: Tab, control: str, text: str) -> None:
    page.js(f"{field(control)}.focus(); {field(control)}.select()")
    page.type(text)
    page.key("Enter")


def test_every_model_is_offered_and_a_tap_chooses_it(page: Tab, stage: Stage) -> None:
    names = f"JSON.stringify([...document.querySelectorAll('{MODELS} button span')].map((e) => e.textContent))"
    assert json.loads(page.js(names)) == [*registry.REGISTRY, "identity"]
    pressed = f"document.querySelector('{MODELS} [aria-pressed=true] span').textContent"
    assert page.js(pressed) == "ember" and page.js(NOW) == "In force: ember 256x256"
    page.click(f"{MODELS} [data-value=identity]")
    wait(lambda: chosen(stage) == ("identity", "256x256"), "the model")
    page.until(f"{pressed} === 'identity' && {field(MODEL)}.value === 'identity'")
    page.click(f'{SIZES} [data-value="512x288"]')
    wait(lambda: chosen(stage) == ("identity", "512x288"), "the size")
    page.until(f"{field(SIZE)}.value === '512x288'")


def test_a_refused_value_leaves_the_value_in_force_and_is_told_beside_its_field(page: Tab, stage: Stage) -> None:
    before = page.js(PLACES)
    typed(page, SIZE, "300x200")
    page.until(f"{beside(SIZE)}.includes('Use 288x192 or 304x208.')")
    assert chosen(stage) == ("ember", "256x256") and page.js(f"{field(SIZE)}.value") == "300x200"
    assert page.js(f"document.querySelector('{SIZE}').classList.contains('refused')")
    assert page.js(f"tidecast.state.values.engine_size === '256x256' && {beside(MODEL)} === ''")
    typed(page, MODEL, "../weights")
    page.until(f"{beside(MODEL)}.includes('There is no model named')")
    assert chosen(stage) == ("ember", "256x256")
    assert page.js(NOW) == "In force: ember 256x256"
    assert page.js(PLACES) == before, "nothing moved"
    typed(page, SIZE, "512x288")
    wait(lambda: chosen(stage) == ("ember", "512x288"), "what was mended")
    page.until(f"{beside(SIZE)} === ''")
    assert page.js(PLACES) == before


def test_loading_is_said_and_what_failed_comes_back_with_the_reason(page: Tab, stage: Stage) -> None:
    before = page.js(PLACES)
    typed(page, MODEL, "wan21-tiny")
    wait(lambda: chosen(stage)[0] == "wan21-tiny", "the model")
    stage.telemetry.update(state="loading", message="Loading wan21-tiny 256x256")
    page.until(f"{NOW} === 'Loading wan21-tiny 256x256. The output shows the input.'")
    assert page.js(PLACES) == before
    stage.store.set("engine_model", "ember")  # as the bridge does when the start has failed
    stage.telemetry.error("/tidecast/engine/model", "wan21-tiny 256x256 could not be started: no memory.")
    stage.telemetry.update(state="running", message="")
    page.until(f"{beside(MODEL)}.includes('could not be started') && {field(MODEL)}.value === 'ember'")
    page.until(f"{NOW} === 'In force: ember 256x256'")
    assert page.js(PLACES) == before
    stage.store.set("engine_model", "ember")


def test_the_keyboard_alone_chooses_a_size(page: Tab, stage: Stage) -> None:
    page.js(f"{field(SIZE)}.focus()")
    for _ in range(12):
        page.key("Tab", "Tab", 9)
        if page.js("document.activeElement.dataset.value === '384x224'"):
            break
    page.key("Enter")
    wait(lambda: chosen(stage)[1] == "384x224", "the size")


def test_no_text_is_cut_on_a_button(page: Tab) -> None:
    buttons = f'[...document.querySelectorAll("{SIZES} button")]'
    assert page.js(f"{buttons}.length > 5 && {buttons}.every((b) => b.scrollWidth <= b.clientWidth)")
