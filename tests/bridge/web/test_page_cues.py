"""The cue list in a real browser, with a real list: GO, pads, changes, and that nothing moves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.web.test_page import axe
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

PAD = "#cue-pads button:nth-child({})"
BOXES = """(() => { const box = (s) => document.querySelector(s).getBoundingClientRect(), from = box("#slots");
return JSON.stringify([["#picture", "#panic", "#snapshots", "#rest"].map(box), ["#pad", "#cues", "#cue-stage",
"[data-command=cue_go]", "#cue-now", "#cue-next", "#cue-left", "#cue-acts", "#cue-pads"].map(box).map((b) =>
[b.x - from.x, Math.round(b.y - from.y), b.width, b.height])]); })()"""
TEXT = "document.getElementById('{}').textContent"
LONG = "A name as long as a name may be, you see"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(folder=tmp_path) as running:
        yield running


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Tab]:
    ready = "window.tidecast && tidecast.state.online && tidecast.state.readings.cue_state"
    with browser.page(stage.web.url, ready, "the state of the list") as tab:
        yield tab


def said(page: Tab, **texts: str) -> None:
    for name, text in texts.items():
        page.until(f"{TEXT.format('cue-' + name)} === '{text}'", f"{name}: {text}")


@pytest.mark.parametrize("size", [(1440, 900, False), (1280, 800, False), (768, 1024, True), (390, 844, True)])
def test_go_plays_the_list_and_nothing_moves(page: Tab, stage: Stage, size: tuple[int, int, bool]) -> None:
    page.size(size[0], size[1], mobile=size[2])
    said(page, now="–", next="–", left="no cues")
    before = page.js(BOXES)
    for number, name in enumerate(("Intro", LONG, "End"), 1):
        stage.store.set("mix", number / 10)
        page.click("#cue-add")
        wait(lambda number=number: len(stage.cues.cues.cue) == number, "the cue")
        stage.store.handle("/tidecast/cue/name", [number, name])
    page.until("document.querySelectorAll('#cue-pads button').length === 3")
    said(page, next="1 Intro", left="waits for GO")
    stage.store.set("mix", 1.0)
    page.click("[data-command=cue_go]")
    wait(lambda: stage.store.snapshot.value("mix") == 0.1, "the first cue")
    said(page, now="1 Intro")
    page.js("document.activeElement.blur()")
    page.key("g", "KeyG")
    wait(lambda: stage.store.snapshot.value("mix") == 0.2, "the key")
    said(page, now=f"2 {LONG}", next="3 End")
    page.until(f"document.querySelector('{PAD.format(2)}').getAttribute('aria-current') === 'true'")
    assert page.js(f"document.querySelector('{PAD.format(3)}').classList.contains('next')")
    page.click(PAD.format(3))
    wait(lambda: stage.store.snapshot.value("mix") == 0.3, "the pad")
    said(page, next="–", left="end of the list")
    page.click("[data-command=cue_back]")
    said(page, now=f"2 {LONG}")
    page.key("g", "KeyG")
    page.key("g", "KeyG")
    page.until("document.querySelector('#cues .say').textContent.includes('at its end')", "the refusal, beside it")
    assert page.js(BOXES) == before, "something moved"
    big = page.js(
        "(() => { const b = document.querySelector('[data-command=cue_go]').getBoundingClientRect();"
        " return [b.width, b.height]; })()"
    )
    assert min(big) >= 90
    assert page.js("Math.min(...[...document.querySelectorAll('#cue-pads button')].map((e) => e.offsetHeight))") >= 50


def test_the_rest_of_a_wait_and_a_pause_are_shown(page: Tab, stage: Stage) -> None:
    for text in ("200 beats", "GO"):
        stage.store.handle("/tidecast/cue/add", [])
        stage.store.handle("/tidecast/cue/wait", [1, text] if text != "GO" else [2, text])
    page.until("document.querySelectorAll('#cue-pads button').length === 2")
    page.click("[data-command=cue_go]")
    page.until(f"/^in 19\\d\\.\\d beats$/.test({TEXT.format('cue-left')})", "the beats")
    page.click("[data-command=cue_pause]")
    page.until(f"/^paused, 19\\d\\.\\d beats$/.test({TEXT.format('cue-left')})", "the pause")
    assert page.js("document.querySelector('[data-command=cue_pause]').getAttribute('aria-pressed')") == "true"
    page.click("[data-command=cue_stop]")
    said(page, left="waits for GO")
    stage.store.set("snap", "8-bars")
    page.click("[data-command=cue_go]")
    page.until(f"/^in \\d+\\.\\d beats$/.test({TEXT.format('cue-left')})", "the beats until it lands")
    page.until("tidecast.state.readings.cue_state === 'beat'")


def test_the_editor_changes_a_cue_by_the_keyboard_and_undo_takes_it_back(page: Tab, stage: Stage) -> None:
    for name in ("One", "Two"):
        stage.store.handle("/tidecast/cue/add", [name])
    page.until("document.querySelectorAll('#cue-pads button').length === 2")

    def edit(number: int) -> None:
        page.click("#cue-edit")
        page.click(PAD.format(number))
        page.until("document.getElementById('cue-editor').open")

    edit(1)
    assert page.js("[...document.querySelectorAll('#cue-form input')].map((e) => e.value)") == ["One", "", "GO", "1"]
    page.type("Uno")
    page.key("Tab", "Tab", 9)
    page.type("2 bars")
    page.key("Tab", "Tab", 9)
    page.type("8 beats")
    page.key("Tab", "Tab", 9)
    page.type("2")
    page.key("Enter")
    names = lambda: [cue.name for cue in stage.cues.cues.cue]  # noqa: E731
    wait(lambda: names() == ["Two", "Uno"], "the new place")
    changed = stage.cues.cues.cue[1]
    assert (str(changed.glide), str(changed.wait)) == ("2 bars", "8 beats")
    page.until(f"document.querySelector('{PAD.format(2)}').textContent === '2 Unoglide 2 bars · 8 beats'")
    edit(2)
    page.click("#cue-remove")
    wait(lambda: names() == ["Two"], "the cue to be gone")
    page.click("[data-command=cue_undo]")
    wait(lambda: names() == ["Two", "Uno"], "the cue to be back")
    page.click("#cue-loop")
    wait(lambda: stage.cues.cues.loop, "the loop")
    page.until("document.getElementById('cue-loop').getAttribute('aria-pressed') === 'true'")
    edit(1)
    page.js("document.getElementById('cue-wait').value = 'soon'")
    page.key("Enter")
    page.until("document.querySelector('#cues .say').textContent.includes('is not a length')", "the refusal")


def test_capture_is_switched_on_the_page(page: Tab, stage: Stage) -> None:
    page.click("#cues [data-control=cue_capture] button")
    wait(lambda: stage.store.snapshot.value("cue_capture"), "the capture")
    page.click("[data-control=steps] button:nth-child(3)")
    wait(lambda: stage.store.snapshot.value("steps") == 3, "the steps")
    page.click("#cues [data-control=cue_capture] button")
    wait(lambda: len(stage.cues.cues.cue) == 2, "the look and the steps")
    page.until(f"document.querySelector('{PAD.format(1)}')?.textContent.startsWith('1 Take 1')")


def test_a_long_list_scrolls_to_the_present_cue_and_the_audit_finds_nothing(page: Tab, stage: Stage) -> None:
    for _ in range(12):
        stage.store.handle("/tidecast/cue/add", [])
    page.until("document.querySelectorAll('#cue-pads button').length === 12")
    labels = page.js("[...document.querySelectorAll('#cue-pads button')].map((e) => e.getAttribute('aria-label'))")
    assert labels[11].startswith("Begin cue 12 ") and len(set(labels)) == 12
    stage.store.handle("/tidecast/cue/jump", [12])
    page.until("document.getElementById('cue-pads').scrollTop > 0", "the present cue comes into view")
    page.call("Page.setBypassCSP", enabled=True)
    page.js(axe(Path(__file__).resolve().parents[3] / "build" / "axe"))
    for part in ("cues", "cue-editor"):
        page.js(f"document.getElementById('{part}').showModal?.()")
        found = page.js(
            f"axe.run('#{part}', "
            "{resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations.map((v) =>"
            " [v.impact, v.id, v.nodes.slice(0, 5).map((n) => n.target.join(' ') + ': ' + n.failureSummary)])))"
        )
        assert [f for f in json.loads(found) if f[0] in ("serious", "critical")] == []
