"""What the page says of the picture's way out, in a real browser: latencies, what is left out, A/B, proportions."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from bridge.pipeline.alpha.told import SWITCH_ON, TOPIC
from bridge.pipeline.canvas.shape import stretched
from bridge.pipeline.stages.compare import end_when_changed
from bridge.pipeline.stages.enlarge import Enlarge
from bridge.pipeline.stages.reproject import Reproject
from bridge.pipeline.stages.table import STAGES
from engine.frame import Frame
from tests.bridge.web.test_page import PINNED
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import SIZE, Stage

CAPTION = "document.querySelector('#views [data-kind=output] figcaption').textContent"
PRESSED = "document.getElementById('compare').getAttribute('aria-pressed')"
SWITCH = "document.querySelector('[data-control=compare] button').getAttribute('aria-pressed')"
PLACES = """JSON.stringify([...document.querySelectorAll(`#view-bar button, #panel-video .controls > *, #health,
.legend, .figures`)].map((e) => { const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }))"""
COLOURS = """((id, name) => { const c = document.getElementById(id), g = c.getContext('2d');
const probe = document.createElement('canvas').getContext('2d');
probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name); probe.fillRect(0, 0, 1, 1);
const [r, b, l] = probe.getImageData(0, 0, 1, 1).data, d = g.getImageData(0, 0, c.width, c.height).data, rows = [];
for (let i = 0; i < d.length; i += 4) if (d[i] === r && d[i + 1] === b && d[i + 2] === l && d[i + 3] === 255)
rows.push(Math.floor(i / 4 / c.width)); rows.sort((p, q) => p - q);
return rows.length < 20 ? null : rows[rows.length >> 1] / c.height; })"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        unlisten = end_when_changed(running.store, STAGES)
        yield running
        unlisten()


MARKS = "[...document.querySelectorAll('.omitted')].filter((e) => !e.hidden)"
READY = "window.tidecast && tidecast.state.online && tidecast.drawn.output > 2"


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Tab]:
    stage.size, stage.motion_ms, stage.latency_ms = SIZE, 30.0, 110.0
    stage.store.set_many({"compare": False, "reproject": 0.0, "detail": 0.0, "slo_latency": 150.0})
    stage.telemetry.update(given_up="", stretched="", reprojection="off", alpha_state="off", alpha_unable="")
    width, height, mobile = request.param
    with browser.page(stage.web.url, READY, "the first pictures", size=(width, height), mobile=mobile) as tab:
        yield tab


def test_the_preview_takes_the_proportions_of_the_output_and_nothing_moves(
    page: Tab, stage: Stage, browser: Browser
) -> None:
    before = page.js(PINNED)
    with browser.page(f"{stage.web.url}output", "window.tidecast && tidecast.drawn.wall > 2") as wall:
        for size, small, full in (
            ((200, 400), (200, 400), (175, 350)),  # as many points as the output of the start has
            ((1280, 720), (640, 360), (330, 185)),
            (SIZE, SIZE, SIZE),
        ):
            stage.size = size
            for kind in ("output", "input"):
                canvas = f"document.getElementById('canvas-{kind}')"
                page.until(f"{canvas}.width === {small[0]} && {canvas}.height === {small[1]}", f"{kind} {size}")
            wall.until(f"output.width === {full[0]} && output.height === {full[1]}", f"the wall {size}")
            assert page.js(PINNED) == before, "something moved with the proportions"


def test_the_latencies_of_style_and_motion_are_plotted_for_half_a_minute(page: Tab, stage: Stage) -> None:
    at = lambda name: page.js(f"{COLOURS}('plot-motion', '{name}')")  # noqa: E731
    assert page.js("document.getElementById('plot-motion').clientWidth") == 0, "folded into one line"
    page.click("#health-fold")
    page.until("tidecast.state.history.length > 8", "points")
    page.until("/style now 1\\d\\d ms, motion now [23]\\d ms/.test(document.getElementById('plot-motion').ariaLabel)")
    assert page.js("getComputedStyle(document.querySelector('.key.motion'), '::before').borderTopStyle") == "dotted"
    legend = page.js("document.querySelector('#plot-motion + .legend').innerText").split()
    assert {"style", "motion", "target"} <= set(legend) and "30 seconds" in " ".join(legend)
    page.until("/^3\\d$|^2\\d$/.test(document.getElementById('motion-now').textContent)", "the figure beside the line")
    wait(lambda: at("--accent") is not None and at("--ice") is not None, "both lines")
    assert at("--accent") < at("--ice"), "the style is later than the motion, and its line higher"
    before = page.js(PLACES)
    stage.telemetry.update(reprojection="no input")
    page.until("document.getElementById('reprojection').textContent === 'Reproject: no input'")
    assert page.js(PLACES) == before
    old, new = "Array(180).fill([2000, 3000, 30, 1500])", "Array(60).fill([100.5, 101, 30, 50])"
    page.js(f"tidecast.state.history = [...{old}, ...{new}]; void 0")
    page.until("tidecast.state.history.at(-1)[0] !== 100.5", "the next point")
    assert 0.2 < at("--accent") < 0.7, "what is older than half a minute decides nothing here"


def test_what_is_left_out_is_said_beside_its_control_and_in_health(page: Tab, stage: Stage) -> None:
    before = page.js(PLACES)
    stage.telemetry.update(given_up="reprojection")
    seen = f"{MARKS}.map((e) => e.closest('.fader').innerText)"
    page.until(f"{seen}.length === 1 && {seen}[0].startsWith('Reproject')")
    name = "document.querySelector('label[for=w-reproject]').textContent"
    assert page.js(name) == "Reproject left out", "who cannot see it hears it with the name of the fader"
    box = page.js(
        "(() => { const m = document.querySelector('.omitted').getBoundingClientRect(), v = document.querySelector("
        "'[data-control=reproject] .value').getBoundingClientRect(); return [m.right, v.right - v.width]; })()"
    )
    assert box[0] <= box[1], "it does not lie over the number"
    stage.telemetry.update(given_up="detail, reprojection, grain")
    page.until(f"{seen}.length === 2")
    page.until("document.getElementById('force').textContent.includes('detail, reprojection, grain')")
    assert page.js(PLACES) == before
    stage.telemetry.update(given_up="")
    page.until(f"{seen}.length === 0 && document.getElementById('force').textContent.includes('nothing')")


def test_the_page_knows_the_words_of_the_stages(page: Tab, stage: Stage) -> None:
    reproject, enlarge = Reproject(), Enlarge((64, 48))
    reproject._frame = Frame(np.zeros((48, 64, 3), np.uint8))  # only what is at work can be given up
    enlarge._wanted_detail = True
    shown = f"{MARKS}.map((e) => e.closest('.fader').dataset.control).join()"
    for made, control in ((reproject, "reproject"), (enlarge, "detail")):
        stage.telemetry.update(given_up=made.give_up())
        page.until(f"{shown} === '{control}'", control)


def test_a_stretched_picture_is_said_below_the_size_with_what_to_do(page: Tab, stage: Stage) -> None:
    words = "document.getElementById('size-note')"
    before = page.js(PLACES)
    assert page.js(f"{words}.textContent").startswith("Such as 1920x1080")
    sentence = stretched((512, 512), (1920, 1080))
    stage.telemetry.update(stretched=sentence)
    page.until(f"{words}.classList.contains('amber')")
    assert page.js(f"{words}.textContent") == sentence
    assert page.js(f"{words}.scrollHeight <= {words}.clientHeight"), "all of it is seen"
    assert page.js("document.getElementById('w-output_size').getAttribute('aria-describedby')") == "size-note"
    assert page.js(PLACES) == before
    stage.telemetry.update(stretched="")
    page.until(f"!{words}.classList.contains('amber') && {words}.textContent.startsWith('Such as')")


def test_transparency_is_chosen_and_what_becomes_of_it_is_said_below(page: Tab, stage: Stage) -> None:
    words = "document.getElementById('alpha-note')"
    amber = f"{words}.classList.contains('amber')"
    before = page.js(PLACES)
    choice = "[data-control=output_alpha] button"
    assert page.js(f"[...document.querySelectorAll('{choice}')].map((b) => b.textContent).join()") == (
        "off,straight,premultiplied"
    )
    for state, unable, said in (
        ("left out", "", "The picture is cut out, but nothing"),
        ("opaque", "", "Nothing is transparent now"),
        ("straight", "window:2", "window:2 cannot send transparency"),
        ("premultiplied", "", "What is transparent leaves darkened"),
        ("straight", "", "The whole picture leaves"),
    ):
        stage.telemetry.update(alpha_state=state, alpha_unable=unable)
        page.until(f"{words}.textContent.startsWith('{said}')", said)
        assert page.js(amber) == (state == "left out" or bool(unable))
        assert page.js(f"{words}.scrollHeight <= {words}.clientHeight"), "all of it is seen"
    assert page.js(PLACES) == before
    page.js(f"[...document.querySelectorAll('{choice}')][2].click()")
    wait(lambda: stage.store.snapshot.value("output_alpha") == "premultiplied", "the press to arrive")
    stage.telemetry.error(TOPIC, SWITCH_ON)
    page.until(f"document.body.innerText.includes('{SWITCH_ON}')")


def test_one_key_compares_and_every_page_shows_it(page: Tab, browser: Browser, stage: Stage) -> None:
    stage.store.set_many({"reproject": 0.75, "detail": 0.5})
    on = lambda: stage.store.snapshot.value("compare")  # noqa: E731
    before = page.js(PINNED), page.js(PLACES)
    with browser.page(stage.web.url, READY) as other:
        pages = (page, other)
        page.js("document.activeElement.blur()")
        page.key("c", "KeyC", at=time.time(), held_s=0.1)
        wait(on, "B")
        for tab in pages:
            tab.until(f"{PRESSED} === 'true' && {SWITCH} === 'true' && {CAPTION} === 'output B, plain'")
        values = [stage.store.snapshot.value(name) for name in ("reproject", "detail")]
        assert values == [0.75, 0.5], "the faders keep their values"
        assert page.js("document.querySelector('[data-control=detail] output').textContent") == "0.50"
        assert (page.js(PINNED), page.js(PLACES)) == before, "something moved"
        other.click("#compare")
        wait(lambda: not on(), "A, by the button of the other page")
        for tab in pages:
            tab.until(f"{PRESSED} === 'false' && {CAPTION} === 'output'")
        stage.store.set("compare", True)
        page.until(f"{PRESSED} === 'true'")
        page.js("document.getElementById('w-detail').focus()")
        page.key("ArrowRight", "ArrowRight", 39)
        wait(lambda: not on() and stage.store.snapshot.value("detail") > 0.5, "a hand on the fader to win")
        for tab in pages:
            tab.until(f"{PRESSED} === 'false'")


def test_the_key_that_is_held_compares_while_it_is_held(page: Tab, stage: Stage) -> None:
    heard: list[bool] = []
    unlisten = stage.store.listen(lambda name, value, origin: heard.append(value) if name == "compare" else None)
    page.js("document.activeElement.blur()")
    page.key("c", "KeyC", at=time.time(), held_s=0.8)
    wait(lambda: heard[-1:] == [False], "A after the key")
    page.until(f"{PRESSED} === 'false'")
    page.click("#w-prompt_2")
    page.key("c", "KeyC", at=time.time(), held_s=0.8)
    page.key("Escape", "Escape", 27)
    assert not stage.store.snapshot.value("compare"), "a letter that is typed"
    stage.store.set("compare", True)
    page.until(f"{CAPTION} === 'output B, like A: Reproject and Detail are 0'", "why nothing is seen to change")
    stage.store.set("compare", False)
    listed = page.js("document.getElementById('keys').textContent")
    assert "Compare A/B" in listed
    unlisten()
