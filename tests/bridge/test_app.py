"""The whole bridge between real peers: a sender's process, `tidecast run`, a receiver's process, a third OSC client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect
from zeroconf import IPVersion, ServiceBrowser, Zeroconf

from bridge.app import App
from bridge.bench.overhead import identity, wait_until_running
from bridge.bench.peers import Receiver, Seen, Sender, SleepProbe
from bridge.config_file import load
from bridge.control.osc.packet import build, parse
from bridge.drills.start import as_command, free_port, in_process
from bridge.pipeline.monitor import rate
from bridge.process.supervisor import EngineState
from bridge.video.base import SourceInfo
from bridge.video.synthetic.pattern import read_counter
from engine.errors import NameTakenError
from tests.support.video_peers import Peer, mix_with_cyndilib, serve_with_cyndilib

MARK = f"Tidecast test app {os.getpid()}"
TIMEOUT_S = 90.0


def soon(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def gathered(mixer: Receiver, count: int) -> list[Seen]:
    """The next `count` frames that arrive, or more."""
    mixer.take()
    seen: list[Seen] = []
    soon(lambda: bool(seen.extend(mixer.take()) or len(seen) >= count), f"{count} frames arrive")
    return seen


class Running:
    """`tidecast run` as a user starts it."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "bridge", "run", "--plain", "--osc-port", "0", "--web-port", "0", "--no-web"]
        command += arguments
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = 0
        self.oscquery = ""
        for line in self.process.stdout:
            if found := re.match(r"query\s+(http://\S+)", line):
                self.oscquery = found[1]
            if found := re.match(r"osc\s+127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError("it did not say its OSC port")

    def osc(self, address: str, kind: str, value: str) -> None:
        """Send with Debian's oscsend (liblo), a client that shares nothing with this project."""
        subprocess.run(["oscsend", "127.0.0.1", str(self.port), f"/tidecast{address}", kind, value], check=True)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Running]:
    found = Running(*arguments)
    try:
        yield found
        assert found.stop() == 0
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.communicate()


def brightness(seen: list[Seen]) -> float:
    return float(np.mean([frame.mean for frame in seen[-5:]])) if seen else -1.0


needs_oscsend = pytest.mark.skipif(shutil.which("oscsend") is None, reason="needs liblo-tools")


@needs_oscsend
def test_osc_from_another_program_changes_the_picture_that_arrives():
    with (
        Sender(f"ndi:{MARK} cam", 640, 360, 30),
        running(
            "--input",
            f"ndi:{MARK} cam",
            "--output",
            f"ndi:{MARK} out",
            "--set",
            "process.kind=identity",
            "--size",
            "320x176",
        ) as show,
        Receiver(f"ndi:{MARK} out") as mixer,
    ):
        soon(lambda: brightness(mixer.take()) > 60, "the picture of the camera arrives")
        assert {(frame.width, frame.height) for frame in gathered(mixer, 10)} == {(320, 176)}
        show.osc("/black", "i", "1")
        soon(lambda: 0 <= brightness(mixer.take()) < 30, "black by an int")
        show.osc("/black", "s", "off")
        soon(lambda: brightness(mixer.take()) > 60, "and back by a word")

        show.osc("/freeze", "f", "1.0")
        soon(lambda: len({frame.metadata["seq"] for frame in gathered(mixer, 10)}) == 1, "the last frame is held")
        held = {frame.metadata["seq"] for frame in gathered(mixer, 30)}
        assert len(held) == 1, "and still sent"
        show.osc("/freeze", "f", "0.0")
        soon(lambda: {frame.metadata["seq"] for frame in mixer.take()} - held, "it goes on")


@pytest.mark.alone
def test_no_frame_is_lost_and_every_frame_bears_its_times():
    """At a rate that any machine keeps up with: the receiver gets what the camera sent, in order, once.

    A machine that pauses makes frames late; then every one that is missing was counted where it went.
    """
    config = load(
        None, identity(f"ndi:{MARK} slow cam", f"ndi:{MARK} slow out", 320, 176) | {"process.stall_seconds": 30.0}
    )
    with (
        SleepProbe() as sleep_probe,
        Sender(f"ndi:{MARK} slow cam", 320, 176, 10) as camera,
        App(config) as app,
        Receiver(f"ndi:{MARK} slow out") as mixer,
    ):

        def counted() -> int:
            """Frames that were left out so far, wherever that was."""
            parts = app.capture.skipped, app.supervisor.frames_replaced, app.supervisor.frames_lost
            return camera.skipped() + sum(parts) + app.publisher.pacer.wet.late + mixer.skipped()

        wait_until_running(app)
        gathered(mixer, 20)
        sleep_probe.take()
        before = counted()
        seen = gathered(mixer, 40)
        missing, paused_ms = counted() - before, sleep_probe.take()
    numbers = [frame.counter for frame in seen if frame.counter is not None]
    assert len(numbers) >= 0.9 * len(seen)
    assert numbers == sorted(numbers)
    expected = numbers[-1] - numbers[0] + 1
    lost = expected - len(set(numbers))
    assert lost <= 0.05 * expected + (missing if paused_ms > 50 else 0), (missing, paused_ms)
    for frame in seen:
        assert 0 < int(frame.metadata["captured_ns"]) <= int(frame.metadata["sent_ns"]) <= frame.arrived_ns


def test_panic_buttons_work_while_the_model_loads():
    config = load(
        None,
        identity("pattern:bars", f"ndi:{MARK} loading", 320, 176)
        | {"process.kind": "model", "engine.model": "wan21-tiny"},
    )
    with App(config) as app, Receiver(f"ndi:{MARK} loading") as mixer:
        soon(lambda: brightness(mixer.take()) > 60, "the input goes straight through")
        app.store.set("black", True)
        soon(lambda: 0 <= brightness(mixer.take()) < 30, "black")
        app.store.set("black", False)
        soon(lambda: brightness(mixer.take()) > 60, "and back")


def test_mix_blends_with_the_input_frame_of_the_same_moment():
    """With an engine that gives every frame back, any mix shows each frame as it was: the moments match."""
    with App(load(None, identity("pattern:counter", f"ndi:{MARK} mix", 320, 176))) as app:
        wait_until_running(app)
        with Receiver(f"ndi:{MARK} mix") as mixer:
            app.store.set("mix", 0.5)
            gathered(mixer, 10)
            seen = gathered(mixer, 20)
    # A blend of two moments would hold two numbers, and could not be read.
    assert sum(frame.counter is not None for frame in seen) >= 0.9 * len(seen)


def test_no_input_frames_pile_up_whatever_is_on_air():
    """They are kept for the mix; black, a held picture and the bypass do not mix, and may stay for hours."""
    with App(load(None, identity("pattern:bars", "null:", 64, 48) | {"process.kind": "model"})) as app:
        assert app.supervisor.state is EngineState.LOADING
        time.sleep(1.0)
        assert len(app.capture.history) < 10, "while the engine loads"
    with App(load(None, identity("pattern:bars", "null:", 64, 48))) as app:
        wait_until_running(app)
        for control in ("black", "freeze", "bypass"):
            app.store.set(control, True)
            time.sleep(1.0)
            assert len(app.capture.history) < 10, control
            app.store.set(control, False)


def test_rates_are_counted_over_a_while():
    second = 1_000_000_000
    steady = [n * second // 60 for n in range(600)]
    assert rate(steady, steady[-1]) == pytest.approx(60.0, rel=1e-3)
    chunks = [n * second // 5 + k * 1000 for n in range(20) for k in range(4)]
    assert rate(chunks, chunks[-1]) == pytest.approx(20.0, rel=0.1)
    assert rate([7 * second, 7 * second + 181_000], 7 * second + 200_000) <= 2.0, "two that came close together"
    assert rate(steady, steady[-1] + 3 * second) == rate([], second) == 0.0


def test_an_engine_that_has_not_answered_yet_is_loading():
    config = load(None, identity("pattern:bars", "null:", 64, 48) | {"process.debug": True})
    with App(config) as app:
        seen = set()
        while not (answered := app.publisher.restyled.detector.has_answered):
            seen.add(app.monitor.state())
            time.sleep(0.001)
        assert answered and "running" not in seen
        soon(lambda: app.monitor.state() == "running", "it runs")


@needs_oscsend
def test_a_prompt_changes_the_picture_that_arrives():
    """The embedded model, end to end: another prompt, another look, and the stream goes on."""
    with (
        running(
            "--input",
            "pattern:waves",
            "--output",
            f"ndi:{MARK} styled",
            "--prompt",
            "fire",
            "--set",
            "controls.strength=0.9",
            "--set",
            "controls.steps=1",
        ) as show,
        Receiver(f"ndi:{MARK} styled") as mixer,
    ):

        def redness() -> float:
            """Mean red minus blue of the picture that arrives."""
            return float(np.mean([frame.mean[0] - frame.mean[2] for frame in gathered(mixer, 5)[-5:]]))

        soon(lambda: redness() > 20, "a picture in the colours of fire")
        show.osc("/prompt", "s", "ice")
        soon(lambda: redness() < -20, "a picture in the colours of ice")


@needs_oscsend
def test_another_binding_at_both_ends_sees_what_osc_asks_for(tmp_path):
    """cyndilib sends, cyndilib receives, liblo controls: between them only what NDI and OSC say."""
    name = f"{MARK} cyndilib"
    with (
        Peer(serve_with_cyndilib, f"{name} cam", str(tmp_path)),
        running(
            "--input",
            f"ndi:{name} cam",
            "--output",
            f"ndi:{name} out",
            "--size",
            "320x192",
            "--prompt",
            "fire",
            "--set",
            "controls.strength=0.9",
            "--set",
            "controls.steps=1",
        ) as show,
        Peer(mix_with_cyndilib, f"{name} out", str(tmp_path)) as mixer,
    ):

        def picture() -> np.ndarray:
            mixer.conn.send(("picture",))
            got = mixer.answer()
            return np.zeros((192, 320, 3), np.uint8) if got is None else got[:, :, :3]

        def redness() -> float:
            red, _, blue = picture().reshape(-1, 3).mean(axis=0)
            return float(red - blue)

        soon(lambda: redness() > 20, "the sender's picture in the colours of fire")
        assert picture().shape == (192, 320, 3)
        show.osc("/prompt", "s", "ice")
        soon(lambda: redness() < -20, "in the colours of ice")
        show.osc("/bypass", "i", "1")
        numbers: set[int | None] = {None}
        soon(
            lambda: bool(numbers.add(read_counter(picture())) or len(numbers) > 5), "the sender's own numbers, counting"
        )
        show.osc("/black", "i", "1")
        soon(lambda: picture().max() < 30, "black")


class Announced:
    """Where OSCQuery servers on loopback are announced, by port."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}

    def add_service(self, zeroconf: Zeroconf, kind: str, name: str) -> None:
        info = zeroconf.get_service_info(kind, name)
        if info is not None and info.port is not None:
            self.ports[name] = info.port

    update_service = add_service

    def remove_service(self, zeroconf: Zeroconf, kind: str, name: str) -> None:
        self.ports.pop(name, None)


@needs_oscsend
def test_oscquery_is_there_without_the_page():
    def get(path: str) -> dict[str, Any]:
        with urllib.request.urlopen(show.oscquery + path, timeout=60) as answer:
            return json.load(answer)

    announced = Announced()
    browser = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    with (
        contextlib.closing(browser),
        running("--input", "pattern:bars", "--output", "null:", "--set", "process.kind=identity") as show,
    ):
        ServiceBrowser(browser, ["_oscjson._tcp.local."], announced)
        assert get("?HOST_INFO")["OSC_PORT"] == show.port
        port = urllib.parse.urlsplit(show.oscquery).port
        soon(lambda: port in announced.ports.values(), "it is announced by mDNS")
        show.osc("/strength", "f", "0.25")
        soon(lambda: get("tidecast/strength?VALUE") == {"VALUE": [0.25]}, "the value in force is told")
        with connect(f"ws://127.0.0.1:{port}/") as client:
            client.send(json.dumps({"COMMAND": "LISTEN", "DATA": "/tidecast/mix"}))
            assert parse(client.recv(TIMEOUT_S)) == [("/tidecast/mix", (1.0,))]
            client.send(build("/tidecast/mix", (0.5,)))
            assert parse(client.recv(TIMEOUT_S)) == [("/tidecast/mix", (0.5,))]
        rebound = urllib.request.Request(show.oscquery, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(rebound, timeout=60)
    with pytest.raises(urllib.error.URLError):
        get("?HOST_INFO")


def test_a_name_that_is_taken_is_answered_with_a_free_one():
    with Sender(f"ndi:{MARK} taken", 320, 176, 10), pytest.raises(NameTakenError) as caught:
        App(load(None, identity("pattern:bars", f"ndi:{MARK} taken", 320, 176))).start()
    assert f"{MARK} taken" in caught.value.message
    assert caught.value.remedy


def test_many_starts_in_one_process_leave_nothing_behind():
    """Ten here; `tidecast bench start` does fifty."""
    settings = identity("pattern:bars", f"ndi:{MARK} again", 64, 64) | {
        "osc.port": free_port(socket.SOCK_DGRAM),
        "web.port": free_port(socket.SOCK_STREAM),
        "web.oscquery": True,
        "web.announce": False,
    }
    first, last = in_process(load(None, settings), 10)
    assert first == last


def test_starts_as_a_command_end_in_good_order():
    """Once while it loads and once while it runs; `tidecast bench start` does twenty."""
    osc, web = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    as_command(
        [
            "--input",
            "pattern:bars",
            "--output",
            f"ndi:{MARK} command",
            "--osc-port",
            str(osc),
            "--web-port",
            str(web),
            "--set",
            "process.kind=identity",
        ],
        2,
    )
    for kind, port in ((socket.SOCK_DGRAM, osc), (socket.SOCK_STREAM, web)):
        with socket.socket(socket.AF_INET, kind) as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


def test_the_own_output_is_not_offered_as_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [SourceInfo("spout:Tidecast", "Tidecast"), SourceInfo("spout:Desk", "Desk")]
    monkeypatch.setattr("bridge.app.list_sources", lambda options: seen)
    app = App(load(None, identity("pattern:bars", "spout:Tidecast", 64, 48)))
    assert [source.uri for source in app.inputs()] == ["spout:Desk"]
