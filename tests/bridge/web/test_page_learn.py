"""MIDI learn on the page while MIDI is off, in a real browser, with the real switch and without a MIDI library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.control.midi import switch
from bridge.control.midi.backend import MidiError, open_backend
from bridge.web.messages import MidiState
from tests.fakes import midi_loopback as cables
from tests.support.browser import Browser, Tab
from tests.support.web_stage import Stage

SAID = "document.getElementById('learn-text').textContent"
OFF = "MIDI is off: Tidecast was started without --midi."
NONE = MidiError("MIDI is not installed (mido).", "Run: pip install 'tidecast[midi]'.")
INSIDE = """(() => { const b = document.getElementById('learn-on').getBoundingClientRect(),
v = document.getElementById('views').getBoundingClientRect();
return b.height >= 40 && b.top >= v.top && b.bottom <= v.bottom && b.left >= v.left && b.right <= v.right; })()"""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], Any]]]:
    """What opens the MIDI library: the last of the list."""

    def none() -> Any:
        raise NONE

    openers: list[Callable[[], Any]] = [none]
    monkeypatch.setattr(switch, "open_backend", lambda: openers[-1]())
    yield openers
    for device in [device["name"] for device in cables.get_devices()]:
        cables.unplug(device)


@pytest.fixture
def show(tmp_path: Path, backend: list[Callable[[], Any]]) -> Iterator[Stage]:
    running: list[Stage] = []

    def midi() -> MidiState | None:
        found = running[0].midi.input if running else None
        return MidiState(found.learning, found.knobs, found.ports) if found is not None else None

    with Stage(folder=tmp_path, midi=midi) as stage:
        running.append(stage)
        stage.midi.start(False)
        yield stage
        stage.midi.stop()


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, show: Stage) -> Iterator[Tab]:
    width, height, mobile = request.param
    ready = "window.tidecast && tidecast.state.online"
    with browser.page(show.web.url, ready, size=(width, height), mobile=mobile) as tab:
        yield tab


def test_learn_says_that_midi_is_off_why_it_cannot_be_had_and_goes_on_when_it_can(
    page: Tab, backend: list[Callable[[], Any]]
) -> None:
    page.js("document.getElementById('learn-button').focus()")
    page.key("Enter")
    page.until(f"{SAID} === {OFF!r}")
    assert page.js(INSIDE), "the button is seen, over the picture"
    page.js("document.getElementById('learn-on').focus()")
    page.key("Enter")
    page.until(f"{SAID} === {str(NONE)!r}", "the reason and what to do")
    assert page.js(INSIDE)
    page.click("#learn-done")
    page.click("#learn-button")
    assert page.js(SAID) == str(NONE), "not that it was not asked for"
    backend.append(lambda: open_backend("tests.fakes.midi_loopback"))
    cables.plug("Desk")
    page.click("#learn-on")
    page.until(f"{SAID}.startsWith('Choose a control')", "MIDI to be on")
    assert page.js("document.getElementById('learn-on').hidden")
