"""The control room in a real headless Chromium, against a show with real store, telemetry and web process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.bench.peers import SleepProbe
from bridge.config import EXAMPLES
from bridge.control.modulation.controls import SLOTS, slot
from bridge.control.origin import Origin, Trust
from bridge.drills.viewers import open_pages
from bridge.pipeline.readings import DROP_CAUSES
from bridge.table import TABLE
from bridge.video.table import schemes
from bridge.web import server_process
from bridge.web.messages import MidiState
from engine.controls import Controls
from engine.models.ember.vocabulary import EMBER
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import FPS, SIZE, Stage, tint

MEAN = """((kind) => { const c = document.getElementById("canvas-" + kind); const d = c.getContext("2d")
.getImageData(0, 0, c.width, c.height).data; let s = [0, 0, 0]; for (let i = 0; i < d.length; i += 4)
for (let k = 0; k < 3; k++) s[k] += d[i + k]; return s.map((v) => v / (d.length / 4)); })"""
OTHER = Origin("osc:x", Trust.MACHINE)
AXE = "axe-core@4.14.1"
SIZES = [
    (1024, 768, True),
    (1280, 800, False),
    (1440, 900, False),
    (1541, 900, False),
    (1920, 1080, False),
    (768, 1024, True),
    (390, 844, True),
    (844, 390, True),
]
PLACES = """(() => {
const frame = (e) => { const f = e.closest(".column, #rest, #snapshots, #over");
  return f && getComputedStyle(f).overflowX !== "visible" ? f : document.body; };
const box = (e) => { const b = e.getBoundingClientRect(), f = frame(e).getBoundingClientRect(),
  g = document.getElementById("rest").contains(e) ? document.getElementById("rest").getBoundingClientRect() : f;
  return [Math.max(b.left, f.left, g.left), Math.max(b.top, f.top, g.top), Math.min(b.right, f.right, g.right),
  Math.min(b.bottom, f.bottom, g.bottom)]; };
const seen = (e) => { const [x, y, r, b] = box(e); return e.getClientRects().length > 0 && r > x && b > y; };
const panels = [...document.querySelectorAll("#top, #views, #view-bar, #panic, .panel")].filter(seen);
return panels.map((p) => [p.id || p.dataset.group, box(p),
  [...p.querySelectorAll("h2, button, .fader, .choices, .entry, .field, canvas")].filter(seen)
    .filter((e) => !e.closest("#examples, .sources, .offers, #errors-box"))
    .map((e) => [e.textContent.trim() || e.id, box(e), e.tagName === "BUTTON" && e.scrollWidth > e.clientWidth])]);
})()"""
PINNED = """JSON.stringify(["#top", "#tools", "#picture", "#views", "#view-bar", "#panic", "#snapshots", "#store-mode",
"#beat", "#tap", "#take-back", "#rest", "#slots", "#pad", "#health", "[data-control=strength]", "[data-control=input]",
".sources", "[data-control=mix]", ...[1, 2, 3, 4].map((n) => `#slots .slot:nth-child(${n})`),
...[1, 2, 3].map((n) => `.panic-box:nth-child(${n})`),
...[1, 8, 9, 16].map((n) => `#pads button:nth-child(${n})`)].map((s) => { const b =
document.querySelector(s).getBoundingClientRect(); return [s, b.x, b.y, b.width, b.height]; }))"""
LONG = "a lighthouse in a storm at night, waves of molten glass, heavy clouds, lightning over a black sea " * 4


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(fps=FPS, examples=EXAMPLES) as running:
        yield running


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Tab]:
    ready = "window.tidecast && tidecast.state.online && tidecast.drawn.output > 2"
    with browser.page(stage.web.url, ready, "the first pictures") as tab:
        yield tab


def mean(page: Tab, kind: str = "output") -> np.ndarray:
    """Mean colour of a preview."""
    return np.array(page.js(f"{MEAN}({json.dumps(kind)})"))


def test_pictures_move_and_nothing_is_asked_of_another_host(page: Tab, stage: Stage) -> None:
    first, before = mean(page, "input"), page.js("tidecast.drawn.output")
    page.until(f"tidecast.drawn.output > {before + 10}", "ten more pictures")
    wait(lambda: np.abs(mean(page, "input") - first).sum() > 0.5, "an input of another colour", 240.0)
    page.listen_to_network()
    page.open(stage.web.url)
    page.until("window.tidecast && tidecast.drawn.output > 2 && tidecast.drawn.input > 2")
    assert page.hosts() == {f"127.0.0.1:{stage.web.port}"}


def test_every_control_and_argumentless_command_is_on_the_page(page: Tab) -> None:
    shown = set(page.js("[...document.querySelectorAll('[data-control]')].map((e) => e.dataset.control)"))
    assert shown >= {c.name for c in TABLE.controls}
    commands = set(page.js("[...document.querySelectorAll('[data-command]')].map((e) => e.dataset.command)"))
    assert commands == {c.name for c in TABLE.commands if not c.arguments and c.group not in ("Clients", "Video")}
    listed = page.js("[...document.querySelectorAll('#addresses tbody code')].map((e) => e.textContent)")
    assert listed == ["/tidecast" + c.address for c in TABLE.controls]


def test_a_typed_prompt_changes_the_picture(page: Tab, stage: Stage) -> None:
    stage.store.set_many({"strength": 1.0, "mix": 1.0})
    page.click("#w-prompt_1")
    page.type("a red sea at dusk")
    page.key("Enter")
    wait(lambda: stage.store.snapshot.value("prompt_1") == "a red sea at dusk", "the prompt")
    colour = tint("a red sea at dusk")
    wait(
        lambda: np.abs(mean(page) / (mean(page).sum() + 1e-9) - colour / colour.sum()).max() < 0.08,
        "the preview in the colours of the prompt",
    )


def test_an_offered_word_becomes_the_prompt(page: Tab, stage: Stage) -> None:
    """One tap; the word in force is marked; every word is one that the embedded model knows."""
    stage.store.set_many({"weight_1": 0.5, "weight_2": 0.5})
    page.click("#examples button:nth-child(3)")  # the first one opens the list of all words
    wait(lambda: stage.store.snapshot.of(Controls).prompts() == ((EXAMPLES[1], 1.0),), "the word alone")
    page.until(f"document.querySelector('#examples [aria-pressed=true]')?.textContent === '{EXAMPLES[1]}'")
    assert [EMBER.parse(words)[1] for words in EXAMPLES] == [[]] * len(EXAMPLES)


def test_dragging_strength_reaches_the_store_and_other_pages(browser: Browser, page: Tab, stage: Stage) -> None:
    stage.store.set("strength", 0.9)
    page.until("tidecast.state.values.strength === 0.9")
    heard: list[tuple[str, float, Origin]] = []
    unlisten = stage.store.listen(lambda name, value, origin: heard.append((name, value, origin)))
    other = browser.tab()
    other.open(stage.web.url)
    other.until("window.tidecast && tidecast.state.online")
    page.drag("[data-control=strength] input", (0.7, 0.5), (0.05, 0.5))
    wait(lambda: abs(stage.store.snapshot.value("strength") - 0.25) < 0.06, "strength at the store")
    unlisten()
    assert {n for n, _, _ in heard} == {"strength"} and all(o.name.startswith("web:") for _, _, o in heard)
    want = f"{stage.store.snapshot.value('strength'):.2f}"
    for tab in (page, other):
        tab.until(f"document.querySelector('[data-control=strength] output').textContent === '{want}'")
    other.close()


def test_changes_from_elsewhere_show_at_once(page: Tab, stage: Stage) -> None:
    stage.store.set_many({"steps": 3, "fit": "contain", "mirror": True, "prompt_2": "von OSC ☂", "seed": 77}, OTHER)
    page.until("document.querySelector('#w-prompt_2').value === 'von OSC ☂'")
    page.until("document.querySelector('[data-control=steps] [aria-pressed=true]').textContent === '3'")
    page.until("document.querySelector('[data-control=fit] [aria-pressed=true]').textContent === 'contain'")
    page.until("document.querySelector('[data-control=mirror] button').getAttribute('aria-pressed') === 'true'")
    page.until("document.querySelector('#w-seed').value === '77'")
    stage.store.set_many({"steps": 2, "fit": "cover", "mirror": False, "prompt_2": "", "seed": 0})


@pytest.mark.alone
def test_black_is_black_within_one_output_frame(page: Tab, stage: Stage) -> None:
    """From the store's change at the latest one frame is sent until black; the button and the key both work."""
    frames: list[tuple[int, float]] = []
    unlisten = stage.store.listen(
        lambda name, value, origin: frames.append((stage.sent, value)) if name == "black" else None
    )
    page.click("[data-control=black] button")
    wait(lambda: frames and stage.sent >= frames[0][0] + 2, "two frames")
    assert stage.latest.max() == 0 and stage.black_from - frames[0][0] <= 1
    wait(lambda: mean(page).max() < 3, "black on the page")
    page.until("document.getElementById('state-more').textContent === 'black is on'")
    page.js("document.activeElement.blur()")
    page.key("k", "KeyK")
    wait(lambda: not stage.store.snapshot.value("black"), "the key to lift black")
    wait(lambda: mean(page).max() > 10, "the picture")
    unlisten()


def test_keys_do_nothing_while_typing_and_can_be_switched_off(page: Tab, stage: Stage) -> None:
    page.click("#w-prompt_3")
    page.type("b")
    page.key("k", "KeyK")
    page.key("Escape", "Escape", 27)
    assert not stage.store.snapshot.value("black") and not stage.store.snapshot.value("bypass")
    page.key("?", "Slash", 191)
    page.until("document.getElementById('help').open")
    page.click("#keys-on")
    page.click("#help button")
    page.js("document.activeElement.blur()")
    page.key("k", "KeyK")
    page.js("document.getElementById('keys-on').click()")
    page.key("f", "KeyF")
    wait(lambda: stage.store.snapshot.value("freeze"), "the key to freeze")
    assert not stage.store.snapshot.value("black")
    stage.store.set("freeze", False)


def test_enter_leaves_the_prompt_and_panic_keys_work_while_typing(page: Tab, stage: Stage) -> None:
    """After Enter the next letter is a key again; F1 to F3 work in the middle of a word, and stay out of it."""
    page.click("#w-prompt_4")
    page.type("snow")
    page.key("Enter")
    wait(lambda: stage.store.snapshot.value("prompt_4") == "snow", "the prompt")
    page.key("b", "KeyB")
    wait(lambda: stage.store.snapshot.value("bypass"), "the letter to be a key again")
    for field in ("#w-prompt_4", "#w-seed", "#w-input", "#glide"):
        page.js(f"document.querySelector('{field}').focus()")
        for number, name in enumerate(("bypass", "freeze", "black")):
            before = stage.store.snapshot.value(name)
            page.key(f"F{number + 1}", f"F{number + 1}", 112 + number)
            wait(lambda name=name, before=before: stage.store.snapshot.value(name) != before, f"{name} in {field}")
            page.until(f"tidecast.state.values.{name} === {str(not before).lower()}")
    assert page.js("document.querySelector('#w-prompt_4').value") == "snow"
    shown = page.js(
        "[...document.querySelectorAll('.panic')].map((e) => [...e.querySelectorAll('kbd')].map((k) => k.textContent))"
    )
    assert shown == [["B", "F1"], ["F", "F2"], ["K", "F3"]]
    listed = page.js("document.getElementById('keys').textContent")
    assert all(key in listed for key in ("F1", "F2", "F3", "Enter", "Escape", "Tab"))
    page.js("document.querySelector('#w-seed').focus()")
    page.type("5")
    page.key("Enter")
    assert page.js("document.activeElement === document.body"), "Enter leaves every field"
    stage.store.set_many({"bypass": False, "freeze": False, "black": False, "prompt_4": "", "seed": 0})


def test_the_crossfader_sets_four_weights_by_mouse_and_by_keys(page: Tab, stage: Stage) -> None:
    weights = lambda: [stage.store.snapshot.value(f"weight_{n}") for n in range(1, 5)]  # noqa: E731
    page.drag("#pad", (0.2, 0.2), (0.98, 0.98))
    wait(lambda: weights()[3] == 1.0 and sum(weights()[:3]) == 0, "prompt 4 alone")
    x, y, width, height = page.box("#pad")
    half = 0.5 * (width - 40) / width  # the puck's way is shorter than the pad by its own size
    page.drag("#pad", (0.9, 0.9), (0.9 - half, 0.9 - half))
    wait(lambda: np.allclose(weights(), 0.25, atol=0.03), "all four")
    page.mouse("mousePressed", x + 0.3 * width, y + 0.7 * height)
    page.mouse("mouseMoved", x + 0.3 * width + 3, y + 0.7 * height)
    assert np.allclose(weights(), 0.25, atol=0.03), "nothing jumps to where the pointer is put down"
    page.mouse("mouseMoved", x + 0.3 * width + 10, y + 0.7 * height)
    wait(lambda: sum(weights()[1::2]) > sum(weights()[::2]), "a little to the right of the centre")
    page.mouse("mouseReleased", x + 0.3 * width + 10, y + 0.7 * height)
    page.drag("#pad", (0.88, 0.16), (0.88, 0.16))
    wait(lambda: weights() == [0, 1, 0, 0], "a tap near a corner is caught by it")
    page.js("document.getElementById('pad').focus()")
    for _ in range(20):
        page.key("ArrowLeft", "ArrowLeft", 37)
    wait(lambda: weights()[1] == weights()[3] == 0, "the left edge")
    page.click("#slots .slot:nth-child(1) .only")
    wait(lambda: weights() == [1, 0, 0, 0], "only prompt 1")


def test_the_keyboard_alone_reaches_and_moves_everything(page: Tab, stage: Stage) -> None:
    """Tab goes through every control; arrows move a fader, Space presses a button."""
    stage.store.set_many({slot(number): f"mix sine hz={number}" for number in range(1, SLOTS + 1)})
    page.until("!document.querySelector('.mods button[hidden]')", "a row of every modulator")
    page.js("document.activeElement.blur(); scrollTo(0, 0)")
    reached: set[str] = set()
    panels: list[str] = []
    for _ in range(400):
        page.key("Tab", "Tab", 9)
        panels.append(page.js("document.activeElement.closest('header, section')?.id"))
        reached.add(page.js("document.activeElement.closest('[data-control]')?.dataset.control ?? ''"))
        if page.js("document.activeElement === document.body"):
            break
    stage.store.set_many({slot(number): "" for number in range(1, SLOTS + 1)})
    assert reached >= {c.name for c in TABLE.controls}
    order = [name for name, before in zip(panels, [None, *panels], strict=False) if name and name != before]
    assert order[:5] == ["top", "picture", "panic", "snapshots", "beat"] and order[-1] == "health", order
    assert len(order) == len(set(order)), "Tab comes to every panel once"
    stage.store.set("strength", 0.5)
    page.until("document.querySelector('#w-strength').value === '0.5'")
    page.js("document.getElementById('w-strength').focus()")
    for _ in range(4):
        page.key("ArrowRight", "ArrowRight", 39)
    wait(lambda: stage.store.snapshot.value("strength") == pytest.approx(0.52), "four steps up")
    page.js("document.querySelector('[data-control=mirror] button').focus()")
    page.key(" ", "Space", 32)
    wait(lambda: stage.store.snapshot.value("mirror"), "the switch")
    stage.store.set("mirror", False)


def test_snapshots_are_stored_and_recalled_with_a_glide(page: Tab, stage: Stage) -> None:
    recalled: list[tuple[Any, ...]] = []
    off = stage.store.on("snapshot_recall", lambda args, caller: recalled.append(args))
    stage.store.set("motion", 0.3)
    page.click("#store-mode")
    page.click("#pads button:nth-child(7)")
    page.until("document.querySelector('#pads button:nth-child(7)').classList.contains('full')")
    stage.store.set("motion", 0.9)
    page.js("document.getElementById('glide').value = '2.5'")
    page.click("#pads button:nth-child(7)")
    wait(lambda: recalled == [(7, 2.5)], "the recall with its glide")
    wait(lambda: stage.store.snapshot.value("motion") == 0.3, "the stored value")
    page.js("document.querySelector('#pads button:nth-child(7)').focus()")
    page.key(" ", "Space", 32)
    wait(lambda: len(recalled) == 2, "the recall by keyboard")
    assert page.js("document.activeElement.textContent") == "7", "the next press needs no Tab"
    off()


def test_a_pad_asks_once_before_it_is_overwritten_and_is_named_deleted_and_brought_back(
    page: Tab, stage: Stage
) -> None:
    pad = "#pads button:nth-child(3)"
    stage.stored[3] = {"motion": 0.1}
    page.until(f"document.querySelector('{pad}').classList.contains('full')")
    page.click("#store-mode")
    page.click(pad)
    page.until(f"document.querySelector('{pad}').textContent.includes('replace?')")
    assert stage.stored[3] == {"motion": 0.1}, "the first press only asks"
    page.click(pad)
    wait(lambda: len(stage.stored[3]) > 1, "the second press to overwrite")
    page.click("#edit-mode")
    page.click(pad)
    page.until("document.getElementById('pad-editor').open")
    page.type("Intro")
    page.key("Enter")
    page.until(f"document.querySelector('{pad}').textContent === '3Intro'")
    assert page.js(f"document.querySelector('{pad}').getAttribute('aria-label')") == "Recall snapshot 3 Intro"
    page.click("#edit-mode")
    page.click(pad)
    page.click("#pad-delete")
    wait(lambda: 3 not in stage.stored, "the snapshot to be deleted")
    page.until(f"!document.querySelector('{pad}').classList.contains('full')")
    page.click("[data-command=snapshot_undo]")
    wait(lambda: stage.undone, "the deletion to be taken back")
    stage.names.clear()


def test_midi_learn_by_clicking_a_control(page: Tab, stage: Stage) -> None:
    page.click("#learn-button")
    assert page.js("document.querySelectorAll('.slot-text .learn-target').length") == 0, "no knob types a prompt"
    stage.ports = []
    page.until("document.getElementById('learn-text').textContent.includes('No MIDI device is connected')")
    stage.ports = ["Desk"]
    page.until("document.getElementById('learn-text').textContent.includes('Choose a control')")
    page.click("[data-control=motion] .learn-target")
    page.until("document.getElementById('learn-text').textContent.includes('for Motion')")
    wait(lambda: stage.learning == "/tidecast/motion", "the bridge to wait for a knob")
    stage.learning, stage.bindings = "", {"/tidecast/motion": "CC 7, channel 1"}
    page.until("document.getElementById('learn-text').textContent.includes('CC 7, channel 1')")
    page.until("document.querySelector('[data-control=motion] .learn-target span').textContent === 'CC 7, channel 1'")
    page.click("#learn-done")
    assert page.js("document.querySelectorAll('.learn-target').length") == 0


def test_sources_are_listed_with_size_and_rate_and_can_be_chosen(page: Tab, stage: Stage) -> None:
    assert page.js("document.getElementById('w-input').placeholder") == f"{schemes()}, then a name"
    page.until("document.querySelectorAll('.sources button').length === 2")
    assert "1920 × 1080 · 59.94 fps" in page.js("document.querySelector('.sources button:nth-child(2)').textContent")
    page.click(".sources button:nth-child(2)")
    wait(lambda: stage.store.snapshot.value("input") == "ndi:DESK (Camera 1)", "the new input")
    stage.store.set("input", "")


def test_health_shows_the_readings_and_errors_with_their_remedy(page: Tab, stage: Stage) -> None:
    stage.telemetry.error("engine", "The engine ran out of memory. Choose a smaller size.")
    page.until("document.querySelector('#errors li')?.textContent.includes('Choose a smaller size.')")
    page.until("document.getElementById('fps-out').textContent === '29.8'")
    page.until("document.querySelector('#stages li:nth-child(3) output').textContent > 0")
    page.until("document.getElementById('force').textContent.includes('of')")
    assert page.js("document.querySelectorAll('#drops div').length") == len(DROP_CAUSES)
    page.until("document.getElementById('health-line').textContent.includes('error')")
    assert page.js("document.getElementById('plot').clientWidth") == 0, "folded to one line"
    page.click("#health-fold")
    assert page.js("document.getElementById('plot').clientWidth") > 0
    page.until("document.getElementById('plot').getAttribute('aria-label').includes('now')")


def test_a_new_error_is_shown_until_it_is_read(page: Tab, stage: Stage) -> None:
    hidden = "document.getElementById('alert').hidden"
    assert page.js(hidden), "what went wrong before the page was opened is in the list only"
    stage.telemetry.error("output", "The disk is full. Free some space.")
    page.until(f"!{hidden}")
    assert "output" in page.js("document.getElementById('alert').textContent")
    assert "Free some space." in page.js("document.getElementById('alert').textContent")
    page.click("#alert button")
    page.until(hidden)
    assert "Free some space." in page.js("document.getElementById('errors').textContent")


def test_a_lost_engine_is_said_and_gone_when_it_is_back(page: Tab, stage: Stage) -> None:
    stage.engine_alive = False
    stage.telemetry.update(state="stalled", message="The engine died and is started again.")
    page.until("document.body.dataset.state === 'stalled' && !document.getElementById('notice').hidden")
    assert "started again" in page.js("document.getElementById('notice').textContent")
    wait(lambda: np.ptp(mean(page)) < 2, "the grey input to go out")
    stage.engine_alive = True
    stage.telemetry.update(state="running", message="")
    page.until("document.body.dataset.state === 'running' && document.getElementById('notice').hidden")


def test_no_input_offers_the_test_picture(page: Tab, stage: Stage) -> None:
    stage.telemetry.update(state="no-input")
    page.until("!!document.querySelector('#notice-actions button')")
    page.js("document.querySelector('#notice-actions button').click()")
    wait(lambda: stage.store.snapshot.value("input") == "pattern:bars", "the test picture")
    stage.telemetry.update(state="running")
    page.until("document.getElementById('notice').hidden")
    stage.store.set("input", "")


def test_the_guides_name_this_show(page: Tab) -> None:
    page.click("#connect-button")
    text = page.js("document.getElementById('guides').textContent")
    assert re.search(r"\S+ \(Tidecast\)", text)
    for word in ("OBS", "Resolume", "TouchDesigner", "127.0.0.1:9000", "/tidecast/prompt"):
        assert word in text


def test_recording_starts_and_shows_its_file(page: Tab, stage: Stage) -> None:
    page.click("#record-button")
    wait(lambda: stage.store.snapshot.value("record"), "record")
    page.until("document.querySelector('.file').textContent.includes('show.mp4')")
    page.click("#record-button")
    wait(lambda: not stage.store.snapshot.value("record"), "the end of the recording")


def test_views_watch_only_what_they_show(page: Tab, stage: Stage) -> None:
    page.click("#view-bar [data-view=output]")
    wait(lambda: stage.web.watched == {"output"}, "only the output is copied")
    page.click("#view-bar [data-view=wipe]")
    wait(lambda: stage.web.watched == {"output", "input"}, "both")
    page.drag("#views", (0.5, 0.2), (0.2, 0.2))
    assert abs(float(page.js("document.getElementById('wipe').value")) - 20) < 8
    page.click("#view-bar [data-view=split]")


def test_nobody_watches_and_nothing_is_encoded(browser: Browser, stage: Stage) -> None:
    tab = browser.tab()
    tab.open(stage.web.url)
    tab.until("window.tidecast && tidecast.drawn.output > 1")
    assert stage.web.watched
    tab.close()
    wait(lambda: not stage.web.watched, "the preview to stop when the last page closes")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.alone
def test_a_killed_web_process_comes_back_and_the_stage_does_not_notice(page: Tab, stage: Stage) -> None:
    with SleepProbe() as probe:
        stage.gaps_ms.clear()
        os.kill(stage.web.pid, signal.SIGKILL)
        page.until("document.body.dataset.state === 'offline'")
        page.until("document.body.dataset.state === 'running'", "the page to be back by itself")
        before = page.js("tidecast.drawn.output")
        page.until(f"tidecast.drawn.output > {before + 5}", "pictures again")
        stage.store.set("motion", 0.5)
        page.until("document.querySelector('[data-control=motion] output').textContent === '0.50'")
        assert max(stage.gaps_ms) < 10 * 1000 / FPS + 4 * probe.take(), "it also pauses a program that only sleeps"
    page.events.clear()  # the refused connections are told to the console, as they should be


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_frozen_web_process_is_said_and_the_page_comes_back_by_itself_with_all_values(
    page: Tab, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process keeps its connections open: the page notices that nothing comes."""
    monkeypatch.setattr(server_process, "HANG_S", 7.0)
    stage.store.set_many({"motion": 0.25, "seed": 4711, "prompt_2": "before", "mirror": True})
    page.until("document.querySelector('#w-prompt_2').value === 'before'")
    page.js("window.theSamePage = true")
    page.click("#w-prompt_3")
    page.type("half a prom")
    frozen = stage.web.pid
    os.kill(frozen, signal.SIGSTOP)
    try:
        page.until("document.body.dataset.state === 'offline' && !document.getElementById('notice').hidden")
        assert "keeps trying to reconnect" in page.js("document.getElementById('notice').textContent")
        stage.store.set("prompt_2", "meanwhile")
        wait(lambda: stage.web.pid not in (0, frozen), "another process")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(frozen, signal.SIGCONT)
    page.until("document.body.dataset.state === 'running'", "the page to be back by itself")
    page.until("!document.getElementById('alert').hidden")
    said = page.js("document.getElementById('alert').textContent")
    assert "no sign of life" in said and "comes back by itself" in said
    page.until("document.querySelector('#w-prompt_2').value === 'meanwhile'")
    page.until("document.querySelector('#w-seed').value === '4711'")
    page.until("document.querySelector('[data-control=motion] output').textContent === '0.25'")
    page.until("document.querySelector('[data-control=mirror] button').getAttribute('aria-pressed') === 'true'")
    assert page.js("theSamePage && document.querySelector('#w-prompt_3').value") == "half a prom"
    page.key("Enter")
    wait(lambda: stage.store.snapshot.value("prompt_3") == "half a prom", "the prompt")
    before = page.js("tidecast.drawn.output")
    page.until(f"tidecast.drawn.output > {before + 5}", "pictures again")
    stage.store.set_many({"prompt_2": "", "prompt_3": "", "mirror": False, "seed": 0})
    page.js("document.querySelector('#alert button').click()")
    page.events.clear()  # the lost connections are told to the console, as they should be


@pytest.mark.alone
def test_three_pages_cost_the_stage_no_frame(stage: Stage) -> None:
    """Watched and not in turn, so that a busy machine costs both alike; `tidecast bench web` measures it exactly.

    What other programs take differs from second to second: up to twelve rounds even it out, but never a cost of ours.
    """
    sent, pictures = {0: 0, 3: 0}, 0
    url = stage.web.url.replace("http", "ws", 1) + "api/preview"
    for rounds in range(12):
        if rounds >= 3 and sent[3] >= 0.9 * sent[0]:
            break
        for pages in sent:
            with open_pages(url, pages) as count:
                wait(lambda pages=pages: bool(stage.web.watched) == (pages > 0), "the pages to look")
                before = stage.sent
                time.sleep(1.0)
                sent[pages] += stage.sent - before
                pictures += count()
    assert sent[3] >= 0.9 * sent[0], sent
    assert pictures > 3 * 3 * 10


def test_start_and_stop_leave_nothing_behind(stage: Stage) -> None:
    with Stage() as other:
        port, pid = other.web.port, other.web.pid
        other.web.start()  # a second start changes nothing
        assert other.web.pid == pid
    with Stage(port):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def axe(folder: Path) -> str:
    """The axe accessibility checker, from the npm registry; kept in the folder for the next run."""
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        assert npm, "The accessibility audit needs npm: install the package npm."
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    return script.read_text()


@pytest.fixture(scope="module")
def resized(browser: Browser, stage: Stage) -> Iterator[Tab]:
    """One page for every size."""
    tab = browser.tab()
    tab.size(1440, 900)
    tab.open(stage.web.url)
    tab.until("window.tidecast && tidecast.state.online && tidecast.drawn.output > 2", "the first pictures")
    yield tab
    tab.close()


def test_midi_learn_offers_to_switch_midi_on(browser: Browser) -> None:
    found: list[MidiState] = []
    with Stage(midi=lambda: found[0] if found else None) as show:
        show.store.on("midi_on", lambda args, caller: found.append(MidiState("", {}, ("Desk",))))
        tab = browser.tab()
        try:
            tab.size(1440, 900)
            tab.open(show.web.url)
            tab.until("window.tidecast && tidecast.state.online")
            tab.click("#learn-button")
            said = "MIDI is off: Tidecast was started without --midi."
            assert tab.js("document.getElementById('learn-text').textContent") == said
            tab.click("#learn-on")
            tab.until("document.getElementById('learn-text').textContent.startsWith('Choose a control')")
            assert tab.js("document.getElementById('learn-on').hidden")
            assert tab.complaints() == []
        finally:
            tab.close()


def test_the_output_page_shows_the_whole_picture_and_nothing_else(browser: Browser, stage: Stage) -> None:
    tab = browser.tab()
    try:
        tab.size(1280, 720)
        tab.open(f"{stage.web.url}output")
        tab.until("window.tidecast && tidecast.drawn.wall > 5", "pictures at full size")
        assert tab.js("document.body.innerText.trim()") == "" and tab.js("document.body.children.length") == 1
        assert tab.js("JSON.stringify([output.width, output.height])") == json.dumps(SIZE).replace(" ", "")
        assert tuple(tab.box("#output")) == (0, 0, 1280, 720)
        assert tab.js("getComputedStyle(document.body).cursor") == "none"
        assert tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(0, 0, 0)"
        hidden = "getComputedStyle(output).visibility === 'hidden'"
        assert not tab.js(hidden)
        assert tab.complaints() == []
        frozen = stage.web.pid
        os.kill(frozen, signal.SIGSTOP)  # its connections stay open
        try:
            tab.until(hidden, "black")
        finally:
            with contextlib.suppress(ProcessLookupError):  # it was replaced
                os.kill(frozen, signal.SIGCONT)
        before = tab.js("tidecast.drawn.wall")
        tab.until(f"!({hidden}) && tidecast.drawn.wall > {before} + 5", "the picture again")
    finally:
        tab.close()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_everything_has_its_place(resized: Tab, stage: Stage, size: tuple[int, int, bool]) -> None:
    """Nothing overlaps; picture, panic and snapshots are all seen; and nothing moves, whatever is looked at or said."""
    page = resized
    width, height, mobile = size
    page.size(width, height, mobile=mobile)
    page.js("document.querySelectorAll('.column, #rest').forEach((e) => e.scrollTo(0, 0)); tidecast.look('split')")
    before = page.js(PINNED)
    seen = {name: box for name, box, _ in page.js(PLACES)}
    for name in ("top", "views", "panic", "snapshots", "beat"):
        left, top, right, bottom = seen[name]
        assert left >= -1 and top >= -1 and right <= width + 1 and bottom <= height + 1, name
        assert bottom - top >= 44 and right - left >= 150, name
    assert seen["views"][3] - seen["views"][1] >= 100
    for view in ("output", "input", "wipe", "split"):
        page.js(f"tidecast.look('{view}')")
        panels = page.js(PLACES)
        for name, (left, _, right, _), held in panels:
            assert left >= -1 and right <= width + 1, (view, name)
            for what, (x, _, end, _), spills in held:
                assert left - 1 <= x and end <= right + 1 and not spills, (view, name, what)
        for n, (name, (left, top, right, bottom), _) in enumerate(panels):
            for other, (x, y, end, foot), _ in panels[n + 1 :]:
                apart = right <= x + 1 or end <= left + 1 or bottom <= y + 1 or foot <= top + 1
                assert apart, f"{view}: {name} lies over {other}"
        assert page.js(PINNED) == before, f"something moved with the view {view}"
    stage.store.set_many({"prompt_1": LONG, "prompt_3": LONG, "black": True})
    page.until("document.querySelector('#w-prompt_3').value.length > 300 && tidecast.state.values.black")
    assert page.js(PINNED) == before, "something moved with a long prompt or a panic button"
    page.js("document.getElementById('w-prompt_1').focus()")
    assert page.js(PINNED) == before, "something moved while a prompt is written"
    page.js("document.activeElement.blur()")
    for topic in ("output", "/tidecast/input", "/tidecast/strength", "/tidecast/snapshot/save", "record"):
        stage.telemetry.error(topic, f"{LONG} {size} {topic}")
        page.until(f"tidecast.state.errors.at(-1)?.reason.endsWith('{size} {topic}')")
    stage.telemetry.update(state="no-input", message="Nothing arrives from the camera.")
    page.until("!document.getElementById('notice').hidden")
    assert page.js(PINNED) == before, "something moved with an error or a notice"
    over = page.js(
        "[...document.querySelectorAll('#alert, #notice')].every((e) => document.getElementById('views').contains(e))"
    )
    assert over, "words lie over the picture only"
    stage.telemetry.update(state="running", message="")
    stage.store.set_many({"prompt_1": "", "prompt_3": "", "black": False})
    page.until("document.getElementById('notice').hidden && !tidecast.state.values.black")


def test_errors_stand_beside_what_they_are_about(page: Tab, stage: Stage) -> None:
    """Beside a control that is seen, and nowhere else; over the picture too if it is not; gone with a new value."""
    stage.telemetry.error("/tidecast/strength", "This is no number.")
    page.until("document.querySelector('#panel-stream .say').textContent === 'This is no number.'")
    assert page.js("document.querySelector('[data-control=strength]').classList.contains('refused')")
    assert page.js("document.getElementById('alert').hidden")
    stage.store.set("strength", 0.5)
    page.until("document.querySelector('#panel-stream .say').textContent === ''")
    page.size(390, 844, mobile=True)
    page.js("document.getElementById('rest').scrollTo(0, 0)")
    stage.telemetry.error("/tidecast/input", "There is no such camera.")
    page.until("document.querySelector('.source .say').textContent === 'There is no such camera.'")
    page.until("!document.getElementById('alert').hidden")
    page.js("document.querySelector('#alert button').click()")
    stage.store.set("input", "")


def test_a_fader_follows_the_finger_and_a_scroll_changes_nothing(page: Tab, stage: Stage) -> None:
    """On a phone, with touch: tap, scroll, drag, fine, number above the thumb, typed number, double tap."""
    page.size(390, 844, mobile=True)
    value = lambda: stage.store.snapshot.value("strength")  # noqa: E731
    stage.store.set("strength", 0.6)
    page.until("tidecast.state.values.strength === 0.6")
    x, y, width, height = page.box("[data-control=strength]")
    x, y = x + width / 2, y + height / 2
    heard: list[str] = []
    unlisten = stage.store.listen(lambda name, value, origin: heard.append(name))
    page.touch((x, y))
    scrolled = page.js("document.getElementById('rest').scrollTop")
    page.js("document.getElementById('rest').onscrollend = () => (window.atRest = true)")
    page.touch((x, y), (x + 3, y - 20), (x + 30, y - 90), (x + 60, y - 150))
    page.until(f"document.getElementById('rest').scrollTop > {scrolled + 50}", "the page to scroll")
    assert heard == [] and value() == 0.6, "neither a tap nor a scroll changes a fader"
    page.until("window.atRest", "the end of the scroll, which a finger would only stop")
    x, y, width, height = page.box("[data-control=strength]")
    middle = x + width / 2, y + height / 2
    page.touch(middle, (middle[0] - 8, middle[1]), (middle[0] - width * 0.25, middle[1]), lift=False)
    wait(lambda: abs(value() - 0.37) < 0.04, "as far as the finger moved, from where the value was")
    bubble = page.js(
        "(() => { const b = document.getElementById('bubble').getBoundingClientRect();"
        "return [document.getElementById('bubble').textContent, b.top, b.bottom]; })()"
    )
    assert float(bubble[0]) == pytest.approx(value(), abs=0.006) and bubble[1] >= 0 and bubble[2] <= y, bubble
    coarse = value()
    page.touch((middle[0] - width * 0.25, y - 90), (middle[0], y - 90), begin=False)
    wait(lambda: abs(value() - coarse - 0.025) < 0.02, "a tenth as fast with the finger far from the fader")
    assert page.js("document.getElementById('bubble').hidden")
    time.sleep(0.4)  # two taps further apart than this are not a double tap
    page.touch((x + width - 30, middle[1]))
    page.until("document.activeElement.className === 'typed'")
    page.type("0.815")
    page.key("Enter")
    wait(lambda: value() == pytest.approx(0.815), "the typed number")
    first = time.time()
    page.touch((x + 40, middle[1]), at=first)
    page.touch((x + 40, middle[1]), at=first + 0.1)
    wait(lambda: value() == TABLE.by_name["strength"].default, "the default after a double tap")
    unlisten()


@pytest.mark.parametrize("size", [(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def test_no_serious_accessibility_finding(page: Tab, stage: Stage, size: tuple[int, int, bool]) -> None:
    script = axe(Path(__file__).resolve().parents[3] / "build" / "axe")
    stage.telemetry.error("engine", "An error to be seen by the audit. Do nothing.")
    stage.telemetry.update(given_up="reprojection, detail", stretched="The model's picture is stretched.")
    page.until("!document.querySelector('.omitted').hidden && !!document.querySelector('.amber')")
    width, height, mobile = size
    page.size(width, height, mobile=mobile)
    page.call("Page.setBypassCSP", enabled=True)
    show = "document.getElementById('{}').{}()"
    states = [
        "",
        show.format("connect", "showModal"),
        show.format("help", "showModal"),
        show.format("pad-editor", "showModal"),
        show.format("show-button", "click"),
        show.format("words", "showModal"),
        show.format("browse", "click"),
        show.format("store-mode", "click"),
        show.format("compare", "click"),
        show.format("health-fold", "click"),
        show.format("learn-button", "click"),
        "document.body.classList.add('offline')",
    ]
    findings = []
    page.js(script)

    def audit() -> None:
        found = page.js(
            "axe.run(document, {resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations.map((v) =>"
            " [v.impact, v.id, v.nodes.slice(0, 5).map((n) => n.target.join(' ') + ': ' + n.failureSummary)])))"
        )
        findings.extend(json.loads(found))

    for state in states:
        page.js(f"document.querySelectorAll('dialog').forEach((d) => d.close()); {state}; void 0")
        audit()
    page.js("document.body.classList.remove('offline')")
    stage.telemetry.update(state="error", message=f"A reason that needs scrolling: {LONG}")
    page.until("!document.getElementById('notice').hidden")
    audit()
    stage.telemetry.update(state="running", message="")
    page.until("document.getElementById('notice').hidden")
    stage.store.set("compare", False)
    stage.telemetry.update(given_up="", stretched="")
    serious = [finding for finding in findings if finding[0] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1)
