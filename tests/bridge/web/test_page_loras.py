"""The LoRA panel on the page, in a real browser: names, trigger words, files, and why one does not fit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the home of a test is set as on POSIX")

PANEL = "#panel-lora"
SLOT = "[role=group][aria-label='LoRA {}']"
LOADED = "1 Film noir (noir style, rain), 12 image-to-video keys ignored; 3 ink"
LISTED = "[...document.querySelectorAll('#files-list span')].map((e) => e.textContent)"
PLACES = f"""JSON.stringify([...document.querySelectorAll("{PANEL} .lora")].flatMap((slot) => [slot, ...slot.children])
.map((e) => {{ const b = e.getBoundingClientRect(), o = document.querySelector("{PANEL}").getBoundingClientRect();
return [b.x - o.x, b.y - o.y, b.width, b.height]; }}))"""


def slot(number: int, inside: str) -> str:
    return f"{SLOT.format(number)} {inside}"


def text(number: int, inside: str) -> str:
    return f'document.querySelector("{slot(number, inside)}").textContent'


@pytest.fixture(scope="module")
def home(empty_home: Path) -> Path:
    (empty_home / "Downloads").mkdir()
    for name in ("ink.safetensors", "old.pt", "clip.mp4"):
        (empty_home / "Downloads" / name).write_bytes(b"x" * 2000)
    return empty_home


@pytest.fixture(scope="module")
def browser(home: Path) -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def stage(home: Path) -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Tab]:
    stage.store.set_many(
        {"prompt_1": "a street", "prompt_2": "", "weight_1": 1.0, "weight_2": 0.0, "lora_2_file": "", "lora_1": 0.5}
    )
    stage.telemetry.update(state="running", message="", loras="")
    width, height, mobile = request.param
    ready = "window.tidecast && tidecast.state.online && tidecast.state.local === true"
    with browser.page(stage.web.url, ready, size=(width, height), mobile=mobile) as tab:
        yield tab


def test_names_and_trigger_words_are_shown_and_nothing_moves(page: Tab, stage: Stage) -> None:
    before = page.js(PLACES)
    assert page.js(f"document.querySelectorAll('{PANEL} .lora').length") == 8
    assert page.js(text(1, ".now")) == "no LoRA"
    stage.telemetry.update(loras=LOADED)
    page.until(f"{text(1, '.now')} === 'Film noir, 12 image-to-video keys ignored'")
    words = f'JSON.stringify([...document.querySelectorAll("{slot(1, ".triggers button")}")].map((b) => b.textContent))'
    assert json.loads(page.js(words)) == ["noir style", "rain"]
    assert page.js(text(3, ".now")) == "ink" and page.js(text(2, ".now")) == "no LoRA"
    assert page.js(PLACES) == before


def test_a_click_on_trigger_words_puts_them_into_the_strongest_prompt_once(page: Tab, stage: Stage) -> None:
    stage.telemetry.update(loras=LOADED)
    page.until(f"{text(1, '.now')}.startsWith('Film noir')")
    button = slot(1, ".triggers button")
    page.click(button)
    wait(lambda: stage.store.snapshot.value("prompt_1") == "a street, noir style", "the words")
    page.click(button)
    page.click(slot(1, ".triggers button:nth-child(2)"))
    wait(lambda: stage.store.snapshot.value("prompt_1") == "a street, noir style, rain", "the other word, none twice")
    stage.store.set_many({"weight_1": 0.2, "weight_2": 0.8})
    page.until("tidecast.state.values.weight_2 === 0.8")
    page.js(f'document.querySelector("{button}").focus()')
    page.key("Enter")
    wait(lambda: stage.store.snapshot.value("prompt_2") == "noir style", "the keyboard alone, in the other prompt")


def test_a_file_is_chosen_for_a_slot_and_one_that_does_not_fit_says_why_beside_it(
    page: Tab, stage: Stage, home: Path
) -> None:
    before = page.js(PLACES)
    page.click(slot(2, "button[aria-haspopup]"))
    page.until(f'JSON.stringify({LISTED}) === \'["ink.safetensors","old.pt"]\'', "LoRA files alone, in the downloads")
    page.click("#files-list button")
    wait(lambda: stage.store.snapshot.value("lora_2_file") == str(home / "Downloads" / "ink.safetensors"), "the file")
    assert stage.store.snapshot.value("input") == "", "no other control was written"
    why = "LoRA 2: ink.safetensors was made for a network of width 5120 (Wan 14B); this one's width is 1536 (Wan 1.3B)."
    stage.telemetry.error("/tidecast/lora/2/file", why)  # as the monitor says it
    page.until(f"{text(2, '.say')}.includes('made for a network of width 5120')")
    assert page.js(text(1, ".say")) == "" and page.js(PLACES) == before
    stage.store.set("lora_2_file", "")
    page.until(f"{text(2, '.say')} === ''", "a file that was left has no error any more")


def test_the_next_file_for_the_input_is_a_video_again(page: Tab, stage: Stage) -> None:
    page.click(slot(2, "button[aria-haspopup]"))
    page.until(f"{LISTED}.length === 2")
    page.js("document.getElementById('files').close()")
    page.click("#browse")
    page.until(f"!{LISTED}.includes('old.pt') && document.getElementById('files-say').textContent !== 'Looking …'")
