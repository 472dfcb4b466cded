"""Save show and Open show in a real browser: a file is downloaded, and opened again after a question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.show.show_file import MAX_BYTES
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

TEXT = "document.getElementById('show-text').textContent"
BOX = """JSON.stringify(["#show", "#show-actions", "#show-save", "#show-open", "#show-place", "#snapshots", "#pads"]
.map((s) => [s, document.querySelector(s).getBoundingClientRect()]))"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(folder=tmp_path / "state") as running:
        yield running


@pytest.fixture
def page(stage: Stage) -> Iterator[Tab]:
    ready = "window.tidecast && tidecast.state.online && tidecast.drawn.output > 2"
    expected = "400"  # a refused file is one in the console
    with (
        Browser() as browser,
        browser.page(stage.web.url, ready, "the first pictures", expected=expected) as tab,
    ):
        yield tab


def choose(page: Tab, path: Path) -> None:
    """Choose a file in the dialog, as a person does in the one of the system."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#show-file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


def test_a_show_is_saved_opened_after_a_question_and_taken_back(page: Tab, stage: Stage, tmp_path: Path) -> None:
    kept = stage.kept
    assert kept is not None
    stage.store.set("mix", 0.25)
    kept.save(4)
    kept.rename(4, "Storm")
    kept.color(4, "blue")
    wait(kept.pictures, "the picture")
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#show-button")
    page.until("document.getElementById('show').open")
    empty = page.js(BOX)
    page.click("#show-save")
    saved = wait(lambda: list(tmp_path.glob("show-*.tidecast")), "the download")[0]
    wait(lambda: saved.stat().st_size and json.loads(saved.read_bytes())["snapshots"]["4"]["as"] == "Storm", "its end")
    page.until(f"{TEXT}.startsWith('Saved as show-')")
    kept.delete(4)
    kept.save(9)
    stage.store.set("mix", 0.75)
    page.until("tidecast.state.snapshots.join() === '9'")
    choose(page, saved)
    page.until("!document.getElementById('show-ask').hidden")
    said = page.js(TEXT)
    assert "holds 1 snapshot, 9 MIDI bindings, " in said and "replaces 1 snapshot and" in said and "Undo" in said
    assert page.js(BOX) == empty, "nothing moves in the dialog or behind it"
    assert kept.numbers() == (9,), "only asked"
    page.click("#show-keep")
    assert page.js(TEXT) == "Nothing was changed." and kept.numbers() == (9,)
    choose(page, saved)
    page.until("document.activeElement.id === 'show-replace'")
    page.key("Enter")
    wait(lambda: kept.names() == {4: "Storm"} and stage.store.snapshot.value("mix") == 0.25, "the show")
    page.until(f"{TEXT}.startsWith('Opened: 1 snapshot,')")
    page.js("document.getElementById('show').close()")
    page.until("document.querySelector('#pads button:nth-child(4) img').naturalWidth > 0", "its picture on the pad")
    assert page.js("document.querySelector('#pads button:nth-child(4)').dataset.color") == "blue"
    page.click("[data-command=snapshot_undo]")
    wait(lambda: kept.numbers() == (9,) and stage.store.snapshot.value("mix") == 0.75, "all of it to be taken back")


def test_a_wrong_file_is_refused_in_the_dialog(page: Tab, stage: Stage, tmp_path: Path) -> None:
    wrong, large = tmp_path / "wrong.tidecast", tmp_path / "large.tidecast"
    wrong.write_text('{"tidecast": "show", "version": 9, "program": "3.0"}')
    large.write_bytes(b" " * (MAX_BYTES + 1))
    page.click("#show-button")
    choose(page, wrong)
    page.until(f"{TEXT}.includes('Open it with the version that saved it: 3.0')")
    assert page.js("document.getElementById('show-place').className") == "bad"
    assert page.js("document.getElementById('show-ask').hidden")
    choose(page, large)
    page.until(f"{TEXT}.includes('large.tidecast is too large')")
