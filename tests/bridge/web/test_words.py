"""The words of the model on the page, in a real browser: the list of all words, and unknown words in a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from bridge.config import EXAMPLES
from bridge.web.messages import WordsKnown
from engine.models.ember.vocabulary import EMBER
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

SHOWN = """[...document.querySelectorAll('.word')].filter((e) => !e.hidden)
.map((e) => e.querySelector('span:not(.word-picture)').textContent)"""
SAID = "document.getElementById('words-say').textContent"
ACT = "#words-acts button:nth-child({})"
MARKS = "[...document.querySelectorAll('#slots .slot:nth-child({}) .marks u')].map((e) => e.textContent).join()"
INSTEAD = "#slots .slot:nth-child({}) .instead"
PLACES = """JSON.stringify(["#slots", "#pad", "#examples", "[data-control=strength]",
...[1, 2, 3, 4].map((n) => `#slots .slot:nth-child(${n})`),
...[1, 2, 3, 4].map((n) => `#slots .slot:nth-child(${n}) .only`)].map((s) => { const b =
document.querySelector(s).getBoundingClientRect(); return [s, b.x, b.y, b.width, b.height]; }))"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(examples=EXAMPLES) as running:
        yield running


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Tab]:
    stage.words = WordsKnown(EMBER)
    stage.store.set_many({f"prompt_{n}": "" for n in range(1, 5)} | {"weight_1": 1.0, "weight_2": 0.0})
    ready = "window.tidecast && tidecast.state.online && tidecast.state.words?.list.length > 40"
    width, height, mobile = request.param
    with browser.page(stage.web.url, ready, "the words", size=(width, height), mobile=mobile) as tab:
        yield tab


def open_words(page: Tab) -> None:
    page.click("#words-button")
    page.until("document.getElementById('words').open")


def prompt(stage: Stage, number: int) -> str:
    return str(stage.store.snapshot.value(f"prompt_{number}"))


def test_every_word_has_a_picture_and_goes_into_a_prompt(page: Tab, stage: Stage) -> None:
    open_words(page)
    assert page.js(SHOWN) == list(EMBER.words)
    page.until("fetch(tidecast.state.words.pictures.address).then((r) => r.ok)", "the pictures")
    places = page.js("[...document.querySelectorAll('.word-picture')].map((e) => e.style.backgroundPosition)")
    assert len(set(places)) == len(EMBER.words)
    box = "document.getElementById('words').getBoundingClientRect()"
    assert page.js(f"{box}.right <= innerWidth && {box}.bottom <= innerHeight")
    assert page.js("document.getElementById('words').scrollWidth <= document.getElementById('words').clientWidth")
    spills = "[...document.querySelectorAll('.word')].filter((e) => e.scrollHeight > e.clientHeight).length"
    assert page.js(spills) == 0, "pictures and names fit into their buttons"
    page.click(ACT.format(2))
    assert page.js(SAID) == "Choose a word first." and prompt(stage, 2) == ""
    page.click(".word:nth-child(7)")
    page.click(ACT.format(2))
    wait(lambda: prompt(stage, 2) == "neon", "the word in prompt 2")
    assert page.js(SAID) == "Prompt 2: neon. Its weight is 0."
    page.click(".word:nth-child(9)")
    page.click(ACT.format(2))
    wait(lambda: prompt(stage, 2) == "neon sketch", "the word behind the first")
    page.click(ACT.format(5))
    wait(lambda: prompt(stage, 1) == "sketch", "only this word")
    page.until("document.querySelector('#w-prompt_2').value === 'neon sketch'")


def test_a_search_finds_synonyms_and_moves_nothing(page: Tab) -> None:
    open_words(page)
    before = page.js("JSON.stringify(document.getElementById('words').getBoundingClientRect())")
    page.click("#words-search")
    page.type("lava")
    page.until(f"JSON.stringify({SHOWN}) === '[\"fire\"]'")
    page.type("xyz")
    page.until(f"{SHOWN}.length === 0")
    assert page.js(SAID).startswith("No word is found")
    assert page.js("JSON.stringify(document.getElementById('words').getBoundingClientRect())") == before


def test_the_keyboard_alone_chooses_a_word(page: Tab, stage: Stage) -> None:
    page.js("document.getElementById('words-button').focus()")
    page.key("Enter")
    page.until("document.getElementById('words').open")
    page.js("document.getElementById('words-search').focus()")
    page.type("blue")
    page.key("Enter")
    page.until("document.activeElement.classList.contains('word')")
    assert page.js("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert page.js("document.activeElement.getAttribute('aria-label')").startswith("blueprint")
    page.key("ArrowRight", "ArrowRight", 39)
    assert page.js("document.activeElement.getAttribute('aria-label')").startswith("blue:")
    page.key("Enter")
    page.key("Tab", "Tab", 9)
    assert page.js("document.activeElement.getAttribute('aria-label')") == "Add blue to prompt 1"
    page.key("Enter")
    wait(lambda: prompt(stage, 1) == "blue", "the word")
    page.key("Escape", "Escape", 27)
    page.until("!document.getElementById('words').open")


def test_other_models_show_words_without_pictures_or_examples(page: Tab, stage: Stage) -> None:
    stage.words = WordsKnown(dataclasses.replace(EMBER, words=(*EMBER.words, "glass")))
    page.until("tidecast.state.words.list.length === 47")
    open_words(page)
    assert page.js(SHOWN)[-1] == "glass" and page.js("document.querySelector('.word-picture')") is None
    stage.store.set("prompt_3", "a zzz lighthouse")
    page.until(f"{MARKS.format(3)} === 'zzz,lighthouse'")
    stage.words = WordsKnown(None)
    page.until(f"{SAID} === 'This model takes any sentence. These are examples.'")
    assert page.js(SHOWN) == list(EXAMPLES)
    page.until(f"{MARKS.format(3)} === ''", "nothing to be underlined")
    page.click(".word:nth-child(2)")
    page.click(ACT.format(1))
    wait(lambda: prompt(stage, 1) == EXAMPLES[1], "the example")


def test_unknown_words_are_underlined_and_one_tap_replaces_the_word(page: Tab, stage: Stage) -> None:
    page.js("document.querySelectorAll('.column, #rest').forEach((e) => e.scrollTo(0, 0))")
    before = page.js(PLACES)
    page.js("document.getElementById('w-prompt_1').focus()")
    page.type("🌋 a neno zzzz fire")
    page.key("Enter")
    page.until(f"{MARKS.format(1)} === 'neno,zzzz'", "the underlines")
    assert page.js(f"document.querySelector('{INSTEAD.format(1)}').textContent") == "neon?"
    assert page.js(PLACES) == before, "something moved"
    told = "document.getElementById('w-prompt_1').getAttribute('aria-describedby')"
    assert page.js(f"document.getElementById({told}).textContent") == "Not known: neno, zzzz"
    same = """(() => { const a = document.getElementById('w-prompt_1'), m = a.nextElementSibling;
    const s = (e) => { const c = getComputedStyle(e); const b = e.getBoundingClientRect();
    return [c.fontSize, c.lineHeight, c.fontFamily, c.padding, c.letterSpacing, b.x, b.y, b.width, b.height].join(); };
    return s(a) === s(m) || s(a) + ' is not ' + s(m); })()"""
    assert page.js(same) is True
    page.click(INSTEAD.format(1))
    wait(lambda: prompt(stage, 1) == "🌋 a neon zzzz fire", "the word to be replaced")
    page.until(f"{MARKS.format(1)} === 'zzzz'")
    page.until(f"document.querySelector('{INSTEAD.format(1)}').hidden", "nothing near to be offered")
    page.js("document.getElementById('w-prompt_1').focus()")
    page.type("x")
    page.until(f"{MARKS.format(1)} === ''", "no marks in a text that is being written")
    page.key("Escape", "Escape", 27)
    page.until(f"{MARKS.format(1)} === 'zzzz'")


def test_every_unknown_word_of_a_long_prompt_is_underlined(page: Tab, stage: Stage) -> None:
    page.js("document.querySelectorAll('.column, #rest').forEach((e) => e.scrollTo(0, 0))")
    before = page.js(PLACES)
    unknown = [f"zz{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(40)]
    stage.store.set("prompt_2", " fire ".join(unknown))
    page.until(f"{MARKS.format(2)} === '{','.join(unknown)}'", "forty underlines")
    assert page.js(PLACES) == before
    page.js(
        "window.made = 0; new MutationObserver(() => made++).observe(document.querySelector("
        "'#slots .slot:nth-child(2) .marks'), {childList: true}); dispatchEvent(new Event('resize')); void 0"
    )
    page.js("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert page.js("made") == 0, "what is marked already is not marked anew"
