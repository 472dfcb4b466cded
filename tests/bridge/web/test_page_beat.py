"""The beat strip of the page, in a real browser with the real beat: it moves, is tapped and chosen, says what waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from bridge.control.origin import INTERNAL, Origin, Trust
from bridge.control.tempo.service import TempoService
from bridge.web.messages import ChangesPending
from engine.control import PREFIX
from tests.fakes.ableton_link import Library
from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

DESK = Origin("osc:x", Trust.MACHINE)
SIZES = {"desktop": (1440, 900, False), "tablet": (1024, 768, True), "upright": (768, 1024, True)}
SIZES |= {"phone": (390, 844, True), "phone on its side": (844, 390, True)}
PLACES = """JSON.stringify(["#beat", "#beat-line", "#beat-bar", "#meters", "#bpm", "#tap", "#take-back", "#views",
"#panic", "#pads", "#rest", "#beat-row > *:nth-child(3)", "#beat-row > *:nth-child(4)"].map((s) => { const b =
document.querySelector(s).getBoundingClientRect(); return [s.slice(1), b.x, b.y, b.width, b.height]; }))"""
SWEEP = "document.getElementById('beat-sweep').getAnimations()[0]"
PLACE = f"{SWEEP}.effect.getComputedTiming().progress"


class Show(Stage):
    """A page with a beat."""

    def __init__(self) -> None:
        super().__init__(pending=lambda: ChangesPending(self.beat.changes.pending))
        self.library = Library()
        self.beat = TempoService(self.store, self.telemetry, library=lambda: self.library)
        self.taps: list[float] = []
        self.store.on("tempo_tap", lambda args, caller: self.taps.append(time.monotonic()))

    def say(self, address: str, *args: object) -> None:
        assert self.store.handle(PREFIX + address, args, DESK), address


@pytest.fixture(scope="module")
def show() -> Iterator[Show]:
    with Show() as running:
        running.beat.start()
        yield running
        running.beat.stop()


@pytest.fixture(params=list(SIZES.values()), ids=list(SIZES))
def sized(request: pytest.FixtureRequest, browser: Browser, show: Show) -> Iterator[Tab]:
    yield from opened(browser, show, *request.param)


@pytest.fixture
def page(browser: Browser, show: Show) -> Iterator[Tab]:
    yield from opened(browser, show, *SIZES["desktop"])


def opened(browser: Browser, show: Show, width: int, height: int, mobile: bool) -> Iterator[Tab]:
    show.store.set_now({"snap": "off", "prompt_1": "", "tempo_source": "internal", "tempo_bpm": 120.0}, INTERNAL)
    show.beat.changes.cancel()
    show.taps.clear()
    ready = "window.tidecast && tidecast.state.online && tidecast.state.readings.tempo === 120"
    with browser.page(show.web.url, ready, size=(width, height), mobile=mobile) as tab:
        yield tab


def shown(page: Tab, what: str) -> str:
    return str(page.js(f"document.getElementById('{what}').textContent"))


def test_the_beat_moves_by_itself_between_two_tellings(page: Tab, show: Show) -> None:
    show.say("/tempo/bpm", 30.0)  # a bar takes 8 s
    page.until("document.getElementById('bpm').textContent === '30.0'")

    def on_the_beat() -> bool:
        before = show.beat.tempo.bar_at(time.monotonic_ns())
        place = page.js(PLACE)
        after = show.beat.tempo.bar_at(time.monotonic_ns())
        return before - 0.04 < place < after + 0.04  # 0.3 s

    wait(on_the_beat, "the sweep to be where the beat is")
    assert page.js("document.querySelectorAll('#beat-cells i').length") == 4
    moved = page.js(
        "JSON.stringify([...new Set(document.getElementById('beat').getAnimations({subtree: true}).flatMap((a) =>"
        " a.effect.getKeyframes().flatMap((k) => Object.keys(k))))].filter((k) => !/ffset|easing|composite/.test(k)))"
    )
    assert sorted(json.loads(moved)) == ["opacity", "transform"], "nothing is laid out"
    show.beat.stop()  # nothing is told any more
    try:
        told = "tidecast.state.readings.beat"
        wait(lambda: page.js(told) == (time.sleep(0.3) or page.js(told)), "the last telling")
        page.until(f"(window.before ??= {PLACE}) && Math.abs({PLACE} - before) > 0.02", "the beat to go on")
        wait(on_the_beat, "the beat to be right without being told")
    finally:
        show.beat.start()


def test_a_bar_has_as_many_cells_as_beats(page: Tab, show: Show) -> None:
    show.say("/tempo/quantum", 3)
    page.until("document.querySelectorAll('#beat-cells i').length === 3")
    show.say("/tempo/quantum", 4)
    page.until("document.querySelectorAll('#beat-cells i').length === 4")


def test_a_tap_is_one_tap_by_mouse_by_letter_and_on_the_button(page: Tab, show: Show) -> None:
    page.click("#tap")
    wait(lambda: len(show.taps) == 1, "the tap")
    page.js("document.activeElement.blur()")
    page.key("t", "KeyT")
    wait(lambda: len(show.taps) == 2, "the letter")
    page.js("document.getElementById('tap').focus()")
    page.key("Enter")
    wait(lambda: len(show.taps) == 3, "Enter on the button")
    page.click("#w-prompt_1")
    page.key("t", "KeyT")
    page.until("document.getElementById('w-prompt_1').value === 't'")
    page.key("Escape", "Escape", 27)
    assert len(show.taps) == 3, "a letter of a text is no tap"
    assert "Tap the tempo" in shown(page, "keys")


def test_taps_become_the_source_and_the_page_shows_it(page: Tab, show: Show) -> None:
    page.click("#tap")
    page.until("document.getElementById('beat-source').value === 'tap'")


def test_source_and_snap_are_chosen_with_the_keyboard(page: Tab, show: Show) -> None:
    page.js("document.getElementById('beat-source').focus()")
    page.key("ArrowDown", "ArrowDown", 40)
    wait(lambda: show.store.snapshot.value("tempo_source") == "tap", "the source")
    page.js("document.getElementById('beat-snap').focus()")
    for _ in range(2):
        page.key("ArrowDown", "ArrowDown", 40)
    wait(lambda: show.store.snapshot.value("snap") == "bar", "the snap")
    show.say("/snap", "8-bars")
    page.until("document.getElementById('beat-snap').value === '8-bars'")


def test_peers_and_a_lost_source_are_said_and_nothing_moves(sized: Tab, show: Show) -> None:
    page = sized
    before = page.js(PLACES)
    other = show.library.Link(126.0)
    other.enabled = True
    show.say("/tempo/source", "link")
    page.until("document.getElementById('beat-state').textContent === '1 peer'")
    assert page.js(PLACES) == before
    other.enabled = False
    page.until("document.getElementById('beat').dataset.state === 'lost'")
    page.until("document.getElementById('beat-state').textContent.startsWith('Ableton Link is silent.')")
    assert page.js(PLACES) == before
    show.say("/tempo/source", "internal")
    page.until("document.getElementById('beat-state').textContent === ''")


def test_what_waits_is_said_with_its_beats_and_can_be_taken_back(sized: Tab, show: Show) -> None:
    page = sized
    before = page.js(PLACES)
    assert page.js("document.getElementById('take-back').getAttribute('aria-disabled')") == "true"
    show.say("/tempo/bpm", 40.0)
    show.say("/tempo/resync")  # so that the next eight bars begin in 48 s
    page.until("tidecast.state.readings.tempo === 40")
    show.say("/snap", "8-bars")
    show.say("/prompt/1", "fire")
    show.say("/steps", 3)
    page.until("document.getElementById('beat-what').textContent === 'Prompt 1, Steps'")
    page.until("/^ in \\d+\\.\\d beats?$/.test(document.getElementById('beat-until').textContent)")
    left = float(shown(page, "beat-until").split()[1])
    truth = show.beat.changes.pending[0].beat - show.beat.tempo.beat_at(time.monotonic_ns())
    assert truth - 0.1 <= left <= truth + 2.0, "beats are 1.5 s apart"
    page.until(f"parseFloat(document.getElementById('beat-until').textContent.slice(4)) < {left}", "it comes nearer")
    box = json.loads(page.js(PLACES))
    inside = {name: place for name, *place in box}
    x, _, width, height = inside["take-back"]
    assert width >= 44 and height >= 44 and x >= 0 and x + width <= page.js("innerWidth")
    assert box == json.loads(before), "nothing moved"
    page.click("#take-back")
    wait(lambda: not show.beat.changes.pending, "the way back")
    page.until("document.getElementById('beat-what').textContent === ''")
    assert shown(page, "beat-until") == "" and show.store.snapshot.value("prompt_1") == ""
    page.until("document.getElementById('take-back').getAttribute('aria-disabled') === 'true'")
    assert page.js(PLACES) == before


def test_a_recalled_snapshot_that_waits_is_called_by_its_number(page: Tab, show: Show) -> None:
    show.say("/snap", "8-bars")
    show.beat.changes.later("snapshot_recall", 7, ["strength"], DESK, lambda names, first: None)
    page.until("document.getElementById('beat-what').textContent === 'Recall 7'")
    page.click("#take-back")
    wait(lambda: not show.beat.changes.pending, "the way back")


def test_with_less_motion_only_the_cell_of_the_beat_is_lit(page: Tab, show: Show) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    page.until("document.querySelectorAll('#beat-cells i.on').length === 1")
    page.until("document.getElementById('beat').getAnimations({subtree: true}).length === 0")
