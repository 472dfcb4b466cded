"""The pads of the snapshots in a real browser, with real snapshots: pictures, colours, and that nothing moves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.control.snapshot_commands import COLORS
from bridge.control.stored.content import EXTRAS
from bridge.table import TABLE
from engine.control import ALWAYS, NEVER
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import SIZE, Stage

PAD = "#pads button:nth-child({})"
BOXES = """JSON.stringify(["#picture", "#panic", "#snapshots", "#rest", ...[...Array(16).keys()].map((i) =>
`#pads button:nth-child(${i + 1})`)].map((s) => { const b = document.querySelector(s).getBoundingClientRect();
return [s, b.x, b.y, b.width, b.height]; }))"""

BAR = "document.getElementById('store-bar')"
WORDS = {"input", "seed", "latency", "recording", "tempo", "modulation", "audio"}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(folder=tmp_path) as running:
        yield running


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Tab]:
    ready = "window.tidecast && tidecast.state.online && tidecast.drawn.output > 2"
    with browser.page(stage.web.url, ready, "the first pictures") as tab:
        yield tab


def pictured(page: Tab, number: int) -> None:
    """Wait until a pad shows a picture that has arrived."""
    image = f"document.querySelector('{PAD.format(number)} img')"
    page.until(f"{image}.naturalWidth > 0 && {image}.complete && !{image}.hidden", f"the picture of pad {number}")


@pytest.mark.parametrize("size", [(1440, 900, False), (768, 1024, True), (390, 844, True), (844, 390, True)])
def test_pads_show_picture_name_and_colour_and_keep_their_sizes(
    page: Tab, stage: Stage, size: tuple[int, int, bool]
) -> None:
    page.size(size[0], size[1], mobile=size[2])
    pads, kept = [PAD.format(n) for n in (1, 2, 3)], stage.kept
    assert kept is not None
    before = page.js(BOXES)
    page.click("#store-mode")
    page.click(pads[0])
    pictured(page, 1)
    natural = page.js(f"(() => {{ const i = document.querySelector('{pads[0]} img'); return i.naturalWidth; }})()")
    assert natural == min(160, SIZE[0])
    source = page.js(f"document.querySelector('{pads[0]} img').src")
    assert source.startswith(stage.web.url + "api/snapshots/1.jpg?v="), "from the page's own server, no data: address"
    kept.rename(1, "A name that is far too long for a pad")
    kept.color(1, "green")
    kept.save(2)
    kept.color(2, "pink")
    pictured(page, 2)
    page.until(f"document.querySelector('{pads[1]}').dataset.color === 'pink'")
    stripe = (
        "(() => {{ const s = getComputedStyle(document.querySelector('{}'), '::after');"
        " return [s.width, s.content, s.backgroundColor]; }})()"
    )
    assert page.js(stripe.format(pads[0])) == ["6px", '""', "rgb(87, 209, 99)"]
    assert page.js(stripe.format(pads[2]))[1] == "none", "an empty pad has no stripe"
    label = page.js(f"document.querySelector('{pads[0]}').getAttribute('aria-label')")
    assert label == "Recall snapshot 1 A name that is far too long for a pad (green)"
    assert page.js(f"document.querySelector('{pads[0]}').textContent").startswith("1A name")
    assert page.js(BOXES) == before, "pads keep their sizes and places"
    page.click("#store-mode")
    page.click(pads[0])
    page.until(f"document.querySelector('{pads[0]}').textContent.includes('replace?')")
    assert page.js(BOXES) == before
    page.click("#store-mode")
    kept.delete(1)
    page.until(f"document.querySelector('{pads[0]} img').hidden && !document.querySelector('{pads[0]}').dataset.color")
    assert page.js(BOXES) == before


def test_another_save_shows_another_picture(page: Tab, stage: Stage) -> None:
    kept = stage.kept
    assert kept is not None
    kept.save(1)
    pictured(page, 1)
    first = page.js(f"document.querySelector('{PAD.format(1)} img').src")
    stage.store.set("black", True)
    wait(lambda: stage.newest is not None and not stage.newest.pixels[:, :, :3].any(), "black on air")
    kept.save(1)
    page.until(
        f"![{json.dumps(first)}, ''].includes(document.querySelector('{PAD.format(1)} img').getAttribute('src') && "
        f"document.querySelector('{PAD.format(1)} img').src)",
        "the picture of the new save",
    )
    pictured(page, 1)


def test_the_editor_gives_name_and_colour_and_takes_the_colour_away(page: Tab, stage: Stage) -> None:
    kept = stage.kept
    assert kept is not None
    kept.save(2)
    page.until(f"document.querySelector('{PAD.format(2)}').classList.contains('full')")

    def edit() -> None:
        page.click("#edit-mode")
        page.click(PAD.format(2))
        page.until("document.getElementById('pad-editor').open")

    edit()
    offered = page.js("[...document.querySelectorAll('#pad-colors input')].map((e) => e.value)")
    assert tuple(offered) == ("", *COLORS)
    colors = page.js(
        "[...document.querySelectorAll('.swatch[data-color]')].map((e) => getComputedStyle(e).borderLeftColor)"
    )
    assert len(set(colors)) == len(COLORS), "each colour has a look of its own"
    page.js("document.querySelector('#pad-colors input:checked').focus()")
    page.key("ArrowRight", "ArrowRight", 39)
    page.key("ArrowRight", "ArrowRight", 39)
    page.click("#pad-name")
    page.type("Storm")
    page.key("Enter")
    wait(lambda: (kept.names(), kept.colors()) == ({2: "Storm"}, {2: "orange"}), "name and colour, by the keyboard")
    page.until(f"document.querySelector('{PAD.format(2)}').dataset.color === 'orange'")
    edit()
    assert page.js("document.querySelector('#pad-colors input:checked').value") == "orange"
    page.click(".swatch:not([data-color])")
    page.click("#pad-form button[type=submit]")
    wait(lambda: kept.colors() == {}, "the colour to be taken away")
    page.click("[data-command=snapshot_undo]")
    wait(lambda: (kept.names(), kept.colors()) == ({2: "Storm"}, {2: "orange"}), "only the colour to come back")


@pytest.mark.parametrize("size", [(1440, 900, False), (1280, 800, False), (390, 844, True), (844, 390, True)])
def test_what_is_stored_besides_the_look_is_asked_for_while_storing(
    page: Tab, stage: Stage, size: tuple[int, int, bool]
) -> None:
    page.size(size[0], size[1], mobile=size[2])
    kept = stage.kept
    assert kept is not None
    stage.store.set_many({"seed": 77, "slo_latency": 300.0})
    before = page.js(BOXES)
    assert page.js(f"{BAR}.hidden")
    page.click("#store-mode")
    page.until(f"!{BAR}.hidden")
    assert page.js(BOXES) == before, "something moved"
    names = page.js(f"[...{BAR}.querySelectorAll('input')].map((e) => e.value)")
    assert set(names) == WORDS == {c.stored for c in TABLE.controls} - {ALWAYS, NEVER}
    inside = page.js(
        f"(() => {{ const b = {BAR}.getBoundingClientRect(),"
        " p = document.getElementById('views').getBoundingClientRect();"
        " return b.top >= p.top && b.bottom <= p.bottom + 1 && b.left >= 0 && b.right <= innerWidth; })()"
    )
    assert inside, "it lies over the picture and over no control"
    page.click("#store-bar input[value=seed]")
    page.click("#store-bar input[value=latency]")
    page.click(PAD.format(1))
    wait(lambda: 1 in kept.all(), "the snapshot")
    stored = kept.all()[1]
    assert stored[EXTRAS] == ["seed", "latency"] and stored["seed"] == 77 and stored["slo_latency"] == 300.0
    assert "input" not in stored and "record" not in stored
    assert page.js(f"{BAR}.hidden"), "it is gone with the mode"
    page.click("#store-mode")
    assert page.js("document.querySelector('#store-bar input[value=seed]').checked"), "as it was chosen last"
    page.click("#store-bar input[value=seed]")
    page.click("#store-bar input[value=latency]")
    page.click(PAD.format(2))
    wait(lambda: 2 in kept.all(), "the snapshot")
    assert EXTRAS not in kept.all()[2] and "seed" not in kept.all()[2]
    assert page.js(BOXES) == before


def test_the_keyboard_alone_stores_with_the_seed_and_shift_stores_the_look(page: Tab, stage: Stage) -> None:
    kept = stage.kept
    assert kept is not None
    page.js("document.getElementById('store-mode').focus()")
    page.key("Enter")
    page.until(f"!{BAR}.hidden")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9, modifiers=8)
    assert page.js(f"{BAR}.contains(document.activeElement)"), "one step back from Store"
    page.key(" ", "Space", 32)
    word = page.js("document.activeElement.checked && document.activeElement.value")
    assert word in WORDS
    page.js(f"document.querySelector('{PAD.format(6)}').focus()")
    page.key("Enter")
    wait(lambda: 6 in kept.all(), "the snapshot")
    assert kept.all()[6][EXTRAS] == [word]
    page.js(
        f"document.querySelector('{PAD.format(7)}').dispatchEvent(new MouseEvent('click', "
        "{bubbles: true, shiftKey: true}))"
    )
    wait(lambda: 7 in kept.all(), "the snapshot that Shift stores")
    assert EXTRAS not in kept.all()[7], "words that cannot be seen are not meant"


def test_a_notice_stands_above_the_words_and_nothing_of_it_is_hidden(page: Tab, stage: Stage) -> None:
    page.click("#store-mode")
    stage.telemetry.error("output", "The disk is full. Free some space.")
    page.until("!document.getElementById('alert').hidden")
    apart = "document.getElementById('alert').getBoundingClientRect().bottom <= {}.getBoundingClientRect().top + 1"
    assert page.js(apart.format(BAR))
