"""The control room on a running `tidecast demo`: the embedded model, its engine process, OSC, and a real browser."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from pythonosc.osc_message_builder import build_msg
from pythonosc.osc_packet import OscPacket

from bridge.app import App
from bridge.config_file import load
from bridge.pipeline.endpoints import sink_writer
from bridge.video.base import Sink
from engine.frame import Frame
from engine.models.ember.vocabulary import EMBER
from tests.bridge.web.test_page import mean
from tests.support.browser import Browser, Tab, wait

REDNESS = {"fire": 1, "ice": -1}
"""Two prompts of the embedded model whose colours differ: whether red outweighs blue, or blue red."""


class Demo:
    """`tidecast demo` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        settings = {"storage.state_dir": folder / "state", "storage.record_dir": folder / "takes"}
        command = [
            sys.executable,
            "-m",
            "bridge",
            "demo",
            "--size",
            "256x256",
            "--plain",
            "--output",
            "null:",
            "--osc-port",
            "0",
            "--web-port",
            "0",
            "--set",
            "web.announce=false",
            "--set",
            "process.hang_seconds=60",
            *(word for name, value in settings.items() for word in ("--set", f"{name}='{value}'")),
        ]
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        said = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said += line
            if "Ctrl+C" in line:
                break
        page = re.search(r"http://\S+", said)
        osc = re.search(r"oscsend (\S+) (\d+)", said)
        assert page and osc, said + self.log.read_text()
        self.url, self.osc = page[0], (osc[1], int(osc[2]))

    def engine(self) -> psutil.Process:
        """The engine's process: the child that needs most memory."""
        assert self.process.poll() is None, f"tidecast demo has ended: {self.log.read_text()[-2000:]}"
        children = psutil.Process(self.process.pid).children()
        return max(children, key=lambda child: child.memory_info().rss)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(tmp_path_factory.mktemp("demo"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def page(demo: Demo, browser: Browser) -> Iterator[Tab]:
    tab = browser.tab()
    tab.size(1440, 900)
    tab.open(demo.url)
    tab.until("window.tidecast && tidecast.state.online && document.body.dataset.state === 'running'", "the demo")
    yield tab
    assert tab.complaints() == []


class Subscriber:
    """An OSC client of another make that listens to the show."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(2.0)
        self._subscribe()

    def _subscribe(self) -> None:
        self.send("/tidecast/subscribe", self._socket.getsockname()[1])

    def send(self, address: str, *args: object) -> None:
        self._socket.sendto(build_msg(address, list(args)).dgram, self._server)

    def hears(self, address: str, timeout_s: float = 60.0) -> Iterator[object]:
        """First arguments of the messages to an address, as they come."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                packet = OscPacket(self._socket.recv(65536))
            except TimeoutError:  # a slow machine let the subscription end
                self._subscribe()
                continue
            for timed in packet.messages:
                if timed.message.address == address:
                    yield timed.message.params[0]
        raise AssertionError(f"{address} did not say what it should within {timeout_s:g} s")

    def close(self) -> None:
        self._socket.close()


def test_the_restyled_picture_moves(page: Tab) -> None:
    page.until("tidecast.drawn.output > 3 && tidecast.drawn.input > 3", "pictures")
    page.until(f"tidecast.state.words?.list.length === {len(EMBER.words)}", "the words that the engine process says")
    assert (
        page.js("fetch(tidecast.state.words.pictures.address).then((r) => r.headers.get('content-type'))")
        == "image/jpeg"
    )
    first, deadline = mean(page), time.monotonic() + 90.0
    while np.abs(mean(page) - first).sum() <= 0.2:  # ten pictures on, a slow engine may still show the same one
        assert time.monotonic() < deadline, "the picture stands still"
        before = page.js("tidecast.drawn.output")
        page.until(f"tidecast.drawn.output > {before}", "one more picture")
    page.until("tidecast.state.readings.fps_engine > 0")


def test_a_typed_prompt_changes_the_picture(page: Tab) -> None:
    page.js("document.querySelector('[data-control=strength] input').value = 1")
    page.js("document.querySelector('[data-control=strength] input').dispatchEvent(new Event('input'))")
    for words in (*REDNESS, next(iter(REDNESS))):
        page.click("#w-prompt_1")
        page.js("document.getElementById('w-prompt_1').select()")
        page.type(words)
        page.key("Enter")
        page.until(f"tidecast.state.readings.prompt === '{words}'", "the prompt in force")

        def shown(words: str = words) -> bool:
            red, _, blue = mean(page)
            return bool((red - blue) * REDNESS[words] > 10)

        wait(shown, f"the colours of {words}", 90.0)


def test_dragging_strength_is_echoed_to_an_osc_subscriber(demo: Demo, page: Tab) -> None:
    peer = Subscriber(demo.osc)
    peer.send("/tidecast/strength", 1.0)
    page.until("tidecast.state.values.strength === 1", "the peer's value")
    page.drag("[data-control=strength] input", (0.9, 0.5), (0.4, 0.5))
    assert any(abs(float(str(value)) - 0.5) < 0.03 for value in peer.hears("/tidecast/strength"))
    peer.send("/tidecast/strength", 0.25)
    page.until("document.querySelector('[data-control=strength] output').textContent === '0.25'", "the peer's value")
    peer.close()


def test_a_lost_engine_is_said_and_comes_back(demo: Demo, page: Tab) -> None:
    peer = Subscriber(demo.osc)
    peer.send("/tidecast/strength", 0.25)
    page.until("tidecast.state.values.strength === 0.25", "the peer's value")
    demo.engine().send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    page.until("document.body.dataset.state !== 'running' && !document.getElementById('notice').hidden", "the notice")
    page.until("document.querySelectorAll('#errors li').length > 0", "the error with its remedy")
    before = page.js("tidecast.drawn.output")
    page.until(f"tidecast.drawn.output > {before + 3}", "the output to go on with the input")
    page.until("document.body.dataset.state === 'running' && document.getElementById('notice').hidden", "the end")
    assert page.js("tidecast.state.values.strength") == 0.25, "controls survive"
    peer.close()


def test_recording_the_show_gives_a_file(demo: Demo, page: Tab) -> None:
    page.click("#record-button")
    page.until("document.querySelector('.file').textContent.includes('.mp4')", "the file's name")
    path = Path(page.js("tidecast.state.readings.recording"))
    before = page.js("tidecast.drawn.output")
    page.until(f"tidecast.drawn.output > {before + 10}", "pictures to record")
    page.click("#record-button")
    page.until("tidecast.state.readings.recording === ''", "the end")
    wait(lambda: path.exists() and path.stat().st_size > 1000, "the file")


class Watched(Sink):
    """A sink that notes when each frame was sent and how bright it was."""

    def __init__(self) -> None:
        super().__init__("null:")
        self.frames: list[tuple[float, int]] = []

    def open(self) -> None:
        pass

    def send(self, frame: Frame, metadata: object = None) -> None:
        self.frames.append((time.monotonic(), int(frame.pixels.max())))

    def close(self) -> None:
        pass

    @property
    def receivers(self) -> int:
        return 1


@pytest.mark.alone
def test_black_on_the_page_is_black_within_one_output_frame(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between the control's change and the first black frame at most one other leaves, even while the model loads."""
    sink = Watched()
    monkeypatch.setattr(sink_writer, "open_sink", lambda uri, options: sink)
    settings = {
        "output.uri": "null:",
        "osc.enabled": False,
        "web.port": 0,
        "web.announce": False,
        "storage.state_dir": str(tmp_path),
        "engine.model": "ember",
    }
    pressed: list[float] = []
    with App(load("demo", settings)) as app:
        assert app.web is not None
        app.store.listen(lambda name, value, origin: pressed.append(time.monotonic()) if name == "black" else None)
        tab = browser.tab()
        tab.open(app.web.url)
        tab.until("window.tidecast && tidecast.drawn.output > 2")
        tab.click("[data-control=black] button")
        wait(lambda: pressed and sum(at > pressed[0] for at, _ in sink.frames) >= 4, "four frames after the press")
        after = [brightest for at, brightest in sink.frames if at > pressed[0]]
        assert all(brightest == 0 for brightest in after[1:]), after
        before = [brightest for at, brightest in sink.frames if at < pressed[0]]
        assert max(before) > 50
