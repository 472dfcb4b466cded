"""The choice of a file on the page, in a real browser: browse, drop, type a path, mend one that was refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the home of a test is set as on POSIX")

SAID = "document.getElementById('files-say').textContent"
LISTED = "[...document.querySelectorAll('#files-list span')].map((e) => e.textContent)"
BESIDE = "document.querySelector('.source .say').textContent"
FIELD = "document.getElementById('w-input')"
PLACES = """JSON.stringify([".source", ".sources", "[data-control=input]", "[data-control=mirror]", "#browse"]
.map((s) => { const b = document.querySelector(s).getBoundingClientRect();
return [s, b.x, b.y, b.width, b.height]; }))"""
DROP = """((name, size) => { const all = new DataTransfer(); all.items.add(new File([new Uint8Array(size)], name));
const event = new DragEvent("drop", { dataTransfer: all, bubbles: true, cancelable: true });
return document.getElementById("views").dispatchEvent(event); })"""


@pytest.fixture(scope="module")
def home(empty_home: Path) -> Path:
    (empty_home / "Videos" / "Tour").mkdir(parents=True)
    (empty_home / "Videos" / "loop.mp4").write_bytes(b"x" * 3000)
    (empty_home / "Videos" / "Tour" / "night one.mov").write_bytes(b"x" * 10)
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
    stage.store.set("input", "")
    ready = "window.tidecast && tidecast.state.online && tidecast.state.local === true"
    width, height, mobile = request.param
    expected = "/api/files"  # a refused request is told in the console too
    with browser.page(stage.web.url, ready, size=(width, height), mobile=mobile, expected=expected) as tab:
        yield tab


def chosen(stage: Stage) -> str:
    return str(stage.store.snapshot.value("input"))


def row(page: Tab, name: str) -> str:
    """The selector of an entry."""
    at = page.js(LISTED).index(name)
    return f"#files-list button:nth-child({at + 1})"


def test_a_file_is_chosen_through_its_folders(page: Tab, stage: Stage, home: Path) -> None:
    page.click("#browse")
    page.until(f'JSON.stringify({LISTED}) === \'["Tour","loop.mp4"]\'', "the videos")
    dialog = "document.getElementById('files')"
    assert page.js(f"{dialog}.scrollWidth <= {dialog}.clientWidth")
    box = f"{dialog}.getBoundingClientRect()"
    assert page.js(f"{box}.right <= innerWidth && {box}.bottom <= innerHeight")
    page.click(row(page, "Tour"))
    page.until(f"JSON.stringify({LISTED}) === '[\"night one.mov\"]'")
    page.click("#files-up")
    page.until(f"{LISTED}.length === 2")
    page.click("#files-find")
    page.type("LOO")
    page.until(f"JSON.stringify({LISTED}) === '[\"loop.mp4\"]'")
    page.click(row(page, "loop.mp4"))
    wait(lambda: chosen(stage) == f"file:{home}/Videos/loop.mp4", "the file")
    assert not page.js(f"{dialog}.open")
    page.until(f"{FIELD}.value === {json.dumps(f'file:{home}/Videos/loop.mp4')}")


def test_the_keyboard_alone_chooses_a_file_and_what_cannot_be_read_is_said(page: Tab, stage: Stage, home: Path) -> None:
    page.js("document.getElementById('browse').focus()")
    page.key("Enter")
    page.until(f"{LISTED}.length > 0")
    page.js("document.getElementById('files-folder').select()")
    page.type(str(home / "nothing"))
    page.key("Enter")
    page.until(f"{SAID}.startsWith('There is no folder')")
    assert page.js("document.getElementById('files').open"), "Enter goes to the folder and does not close the dialog"
    page.js("document.getElementById('files-folder').select()")
    page.type("~/Videos/Tour")
    page.key("Enter")
    page.until(f"JSON.stringify({LISTED}) === '[\"night one.mov\"]'")
    for _ in range(8):
        page.key("Tab", "Tab", 9)
        if page.js("document.activeElement.closest('#files-list') !== null"):
            break
    page.key("Enter")
    wait(lambda: chosen(stage) == f"file:{home}/Videos/Tour/night one.mov", "the file")


def test_a_dropped_file_is_found_or_the_dialog_says_why_it_is_not(page: Tab, stage: Stage, home: Path) -> None:
    assert page.js(f"{DROP}('loop.mp4', 3000)") is False, "the browser must not open the file itself"
    wait(lambda: chosen(stage) == f"file:{home}/Videos/loop.mp4", "the file")
    stage.store.set("input", "")
    page.js(f"{DROP}('loop.mp4', 2999)")
    page.until("document.getElementById('files').open")
    page.until(f"{SAID}.includes('does not tell where loop.mp4 is') && {LISTED}.length > 0")
    page.js("document.getElementById('files').close()")
    page.js(f"{DROP}('notes.txt', 5)")
    page.until(f"document.getElementById('files').open && {SAID}.includes('neither a video nor a picture')")
    assert chosen(stage) == ""


def test_what_is_refused_or_cannot_be_opened_stays_in_the_field_to_be_mended(page: Tab, stage: Stage) -> None:
    stage.store.set("input", "pattern:waves")
    page.until(f"{FIELD}.value === 'pattern:waves'")
    before = page.js(PLACES)
    page.js(f"{FIELD}.focus(); {FIELD}.select()")
    page.type("studio one")
    page.key("Enter")
    page.until(f"{BESIDE}.includes('names no video transport')")
    assert page.js(f"{FIELD}.value") == "studio one" and chosen(stage) == "pattern:waves"
    assert page.js("tidecast.state.values.input") == "pattern:waves"
    assert page.js("document.querySelector('.source .now').textContent") == "In force: pattern:bars", (
        "what is connected"
    )
    page.js("document.activeElement.blur()")
    page.js(f"{FIELD}.focus(); {FIELD}.setSelectionRange(0, 10)")
    assert page.js(f"{FIELD}.value") == "studio one", "it can be corrected"
    page.type("pattern:nothing")
    page.key("Enter")
    page.until(f"{BESIDE}.includes('There is no test picture')")
    page.js(f"{FIELD}.focus(); {FIELD}.select()")
    page.type("~/gone.mp4")
    page.key("Enter")
    wait(lambda: chosen(stage) == "~/gone.mp4", "an address that may be there one day")
    page.until(f"{BESIDE} === ''")
    stage.telemetry.error("/input", "There is no file '~/gone.mp4'. Check the path.")  # as the capture says it
    page.until(f"{BESIDE}.startsWith('There is no file')")
    assert page.js("document.querySelector('[data-control=input]').classList.contains('refused')")
    assert page.js(f"{FIELD}.value") == "~/gone.mp4"
    assert page.js(PLACES.replace("b.y, ", "")) == json.dumps(
        [[n, x, w, h] for n, x, _, w, h in json.loads(before)], separators=(",", ":")
    )


def test_a_page_on_another_machine_says_where_files_are_chosen(browser: Browser) -> None:
    """Opened at an address of the network, as another machine would."""
    with Stage(host="0.0.0.0") as show:
        if urlsplit(show.web.url).hostname == "127.0.0.1":
            pytest.skip("this machine is in no network")
        tab = browser.tab()
        try:
            tab.size(1440, 900)
            tab.open(show.web.url)
            tab.until("window.tidecast && tidecast.state.local === false")
            assert tab.js("document.getElementById('browse').getClientRects().length") == 0
            assert (
                tab.js("document.querySelector('.away').textContent") == "Files are chosen on the machine of Tidecast."
            )
            tab.js(f"{DROP}('loop.mp4', 3000)")
            tab.until(f"{BESIDE}.includes('Files are chosen on the machine')")
            assert not tab.js("document.getElementById('files').open")
            refused = "fetch('/api/files', {method: 'POST', body: '{}'}).then((r) => r.status)"
            assert tab.js(refused) == 403
        finally:
            tab.close()
