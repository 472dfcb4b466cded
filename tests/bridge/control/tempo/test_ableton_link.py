"""Ableton Link: against a stand-in for the library, and between two processes where the library is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.machinery import PathFinder

import pytest

from bridge.bootstrap import ROOT
from bridge.control.tempo.ableton_link import SETTLE_NS, AbletonLink, LinkError, open_library
from tests.fakes.ableton_link import Library

LIBRARY = ROOT / "build" / "link"
"""Where `.ci/run` puts the library: not where other tests find it, which would join the sessions of other people."""

PATH = [*sys.path, str(LIBRARY)]
INSTALLED = PathFinder.find_spec("link", PATH) is not None


def joined(library: Library, bpm: float) -> AbletonLink:
    link = AbletonLink(library, bpm)
    while not link.enable(True, bpm, time.monotonic_ns()):
        time.sleep(0.01)
    return link


def test_joining_sets_no_tempo_and_takes_its_time() -> None:
    library = Library()
    other = library.Link(128.0)
    other.enabled = True
    link = joined(library, 95.0)
    assert library.session.bpm == 128.0
    assert library.session.set_by == []
    assert library.session.enabled_at_us[-1] >= SETTLE_NS // 1000, "one that is enabled at once takes the tempo over"
    line, peers = link.read(4)
    assert (line.bpm, peers) == (128.0, 1)
    assert link.enable(False, 0.0, time.monotonic_ns()) and not link.enabled
    assert library.session.bpm == 128.0


def test_alone_it_goes_on_in_our_tempo() -> None:
    library = Library()
    link = AbletonLink(library, 120.0)
    while not link.enable(True, 95.0, time.monotonic_ns()):
        time.sleep(0.01)
    line, peers = link.read(4)
    assert (line.bpm, peers) == (95.0, 0)


def test_its_beat_is_told_in_our_time() -> None:
    library = Library()
    link = joined(library, 120.0)
    line, _ = link.read(4)
    ns = time.monotonic_ns()
    us = library.made[0].clock().micros()
    assert line.beat_at(ns) == pytest.approx(library.session.beat_at(us), abs=0.002)


def test_a_person_sets_the_tempo_of_the_session() -> None:
    library = Library()
    link = joined(library, 120.0)
    link.set_bpm(133.0)
    assert library.session.set_by == [133.0]
    assert link.read(4)[0].bpm == 133.0


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "link", None)
    with pytest.raises(LinkError, match="not installed") as caught:
        open_library()
    assert caught.value.remedy == "Run: pip install 'tidecast[link]'."


# Two processes in a network of their own: the library alone, and ours.

OTHER = """
import json, sys, time
import link
other = link.Link(float(sys.argv[1]))
time.sleep(0.6)
other.enabled = True
for line in sys.stdin:
    word, *rest = line.split()
    state = other.captureSessionState()
    if word == "tempo":
        state.setTempo(float(rest[0]), other.clock().micros())
        other.commitSessionState(state)
    now, us = time.monotonic_ns(), other.clock().micros()
    print(json.dumps([now, state.phaseAtTime(us, 4.0), state.tempo(), other.numPeers()]), flush=True)
"""

OURS = """
import json, sys, time
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.control.tempo.service import TempoService
from bridge.table import TABLE
store, errors = ControlStore(TABLE), []
telemetry = Telemetry(TABLE)
telemetry.listen_errors(lambda *error: errors.append(error))
store.set("tempo_bpm", 95.0)
beat = TempoService(store, telemetry).start()
store.set("tempo_source", "link")
for line in sys.stdin:
    word, *rest = line.split()
    if word == "tempo":
        store.set("tempo_bpm", float(rest[0]))
    tempo, now = beat.tempo, time.monotonic_ns()
    line = tempo.line
    print(json.dumps([line.ns, line.beat, line.bpm, tempo.peers, str(tempo.state), errors]), flush=True)
beat.stop()
"""

NETWORK = "ip link set lo up && ip link set lo multicast on && ip route add 224.0.0.0/4 dev lo && exec "


class Peer:
    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(PATH)},
        )

    def ask(self, *words: object) -> list:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait(30):
            raise AssertionError(f"exit code {self.process.returncode}")


@pytest.fixture
def network():
    """A process in a network that holds nothing but a loopback with multicast."""
    if not INSTALLED:
        pytest.skip("LinkPython-extern is not installed (the extra `link`, or in build/link)")
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare and ip make the network for two peers")
    probe = subprocess.run(["unshare", "-n", "sh", "-c", NETWORK + "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no network of its own may be made here: {probe.stderr.strip()}")
    network = Peer("unshare", "-n", "sh", "-c", NETWORK + "sleep 1000")
    inside = ["nsenter", "-t", str(network.process.pid), "-n", "ip", "route"]
    until(lambda: subprocess.run(inside, capture_output=True, text=True).stdout, lambda routes: "224." in routes)
    yield network
    network.process.kill()
    network.process.wait()


def until(read, accept, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not accept(found := read()):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def test_two_peers_share_beat_and_tempo(network: Peer) -> None:
    inside = ["nsenter", "-t", str(network.process.pid), "-n", sys.executable, "-c"]
    other = Peer(*inside, OTHER, "128")
    assert other.ask("state")[2] == 128.0
    time.sleep(1.0)  # its session is older than ours
    ours = Peer(*inside, OURS)
    try:
        found = until(lambda: ours.ask("state"), lambda found: found[3] == 1)
        until(lambda: ours.ask("state"), lambda found: found[2] == pytest.approx(128.0))
        told = until(lambda: other.ask("state"), lambda told: told[3] == 1)
        assert told[2] == 128.0, "joining has changed nothing"
        assert found[4] == "running" and found[5] == []
        for bpm in (128.0, 140.0, 87.5):
            other.ask("tempo", bpm)
            ns, beat, line_bpm, *_ = until(lambda: ours.ask("state"), lambda found, bpm=bpm: abs(found[2] - bpm) < 0.01)
            now, phase, _, _ = other.ask("state")
            mine = beat + (now - ns) * line_bpm / 60e9
            away_beats = (mine - phase + 2.0) % 4.0 - 2.0
            assert abs(away_beats) * 60e3 / bpm < 1.0, "ms"
        ours.ask("tempo", 111.0)
        until(lambda: other.ask("state"), lambda found: found[2] == pytest.approx(111.0))
        other.end()
        lost = until(lambda: ours.ask("state"), lambda found: found[3] == 0)
        assert lost[2] == pytest.approx(111.0), "the beat goes on"
        until(lambda: ours.ask("state"), lambda found: any("Ableton Link is silent" in text for _, text in found[5]))
    finally:
        ours.process.kill()
        other.process.kill()
