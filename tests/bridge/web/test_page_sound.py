"""The sound on the page, in a real browser: meters, what is heard, the tempo that it proposes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser, Tab, wait
from tests.support.web_stage import Stage

SHOWN = "[...document.querySelectorAll('#meters i')].map((e) => e.style.transform).join()"
PLACES = """JSON.stringify(["#meters", "#meters span:nth-child(3)", "#beat-state", "#panel-audio", "#heard",
"#heard-tempo", "#panel-video"].map((s) => { const b = document.querySelector(s).getBoundingClientRect();
return [b.x, b.y, b.width, b.height]; }))"""


@pytest.fixture(params=[(1440, 900, False), (390, 844, True)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Tab]:
    stage.telemetry.update(
        audio_state="off", audio_heard="", audio_bpm=0.0, audio_low=0.0, audio_mid=0.0, audio_high=0.0
    )
    width, height, mobile = request.param
    ready = "window.tidecast && tidecast.state.online && tidecast.state.readings.audio_state === 'off'"
    with browser.page(stage.web.url, ready, size=(width, height), mobile=mobile) as tab:
        yield tab


def text(page: Tab, what: str) -> str:
    return str(page.js(f"document.getElementById('{what}').textContent"))


def test_meters_and_words_say_what_is_heard_and_nothing_moves(page: Tab, stage: Stage) -> None:
    page.until("document.getElementById('heard').textContent === 'No sound is chosen'")
    before = page.js(PLACES)
    stage.telemetry.update(audio_state="running", audio_heard="USB Mixer, 48000 Hz", audio_bpm=126.04)
    stage.telemetry.update(audio_low=1.0, audio_mid=0.5, audio_high=0.25)
    page.until(f"{SHOWN} === 'scaleY(1),scaleY(0.5),scaleY(0.25)'")
    page.until("document.getElementById('heard').textContent === 'Hears USB Mixer, 48000 Hz'")
    page.until("document.getElementById('heard-tempo').textContent === '126.0 bpm are heard'")
    assert "USB Mixer" in page.js("document.getElementById('meters').getAttribute('aria-label')")
    stage.telemetry.update(audio_state="waiting", audio_low=0.0)
    page.until("document.getElementById('heard').textContent === 'No sound from USB Mixer, 48000 Hz'")
    assert page.js(PLACES) == before


def test_the_heard_tempo_is_taken_with_a_button(page: Tab, stage: Stage) -> None:
    taken: list[object] = []
    off = stage.store.on("audio_take", lambda args, caller: taken.append(args))
    page.click("#panel-audio [data-command=audio_take]")
    wait(lambda: len(taken) == 1, "the command")
    off()


def test_what_is_refused_stands_beside_the_field(page: Tab, stage: Stage) -> None:
    page.js("document.getElementById('w-audio_source').focus()")
    page.js("document.getElementById('w-audio_source').select()")
    page.type("radio")
    page.key("Enter")
    page.until("document.querySelector('#panel-audio .say').textContent.includes('is no sound')")
    assert stage.store.snapshot.value("audio_source") == "off"
    stage.telemetry.error("audio", "USB Mixer gives no sound any more. Is it unplugged?")
    page.until("document.querySelector('#panel-audio .say').textContent.includes('unplugged')")
