"""The sound of an NDI source, over real NDI on loopback, from another process with another binding."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.bridge.audio.conftest import Room, eventually
from tests.support.video_peers import Peer, sing_with_cyndilib, unique

HOST = socket.gethostname().split(".")[0].upper()

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="cyndilib sends on Linux only")


def test_the_sound_of_the_source_that_plays_is_heard_falls_silent_and_comes_back(room: Room, tmp_path: Path) -> None:
    name = unique("sound")
    room.say("/audio/auto", 0)
    room.say("/audio/source", "ndi")
    eventually(lambda: any("No NDI source plays" in text for text in room.errors))
    with Peer(sing_with_cyndilib, name, str(tmp_path), 1000.0) as peer:
        room.playing = f"{HOST} ({name})"
        eventually(lambda: room.reading("mid") and abs(room.reading("mid") - 0.1) < 0.01, "a tone of -20 dB")
        assert room.reading("heard") == f"NDI {HOST} ({name}), 48000 Hz" and room.reading("state") == "running"
        assert room.signal("high") < 0.005
        peer.conn.send(("level", 0.0))
        eventually(lambda: room.reading("level") == 0.0 == room.signal("level"))
        assert room.reading("state") == "running", "it sends silence"
        peer.conn.send(("level", 0.3))
        eventually(lambda: room.reading("mid") > 0.25)
        os.kill(peer.process.pid, signal.SIGKILL)
        eventually(lambda: room.reading("state") == "waiting" and room.reading("level") == 0.0)
        with Peer(sing_with_cyndilib, name, str(tmp_path), 5000.0):
            eventually(lambda: room.reading("high") > 0.09, "it to be found again")


def test_another_source_is_heard_by_its_name(room: Room, tmp_path: Path) -> None:
    low, high = unique("sound low"), unique("sound high")
    with Peer(sing_with_cyndilib, low, str(tmp_path), 80.0), Peer(sing_with_cyndilib, high, str(tmp_path), 6000.0):
        for name, band in ((low, "low"), (high, "high")):
            room.say("/audio/source", f"ndi:{name}")
            eventually(lambda band=band: room.reading(band) > 0.9)
            eventually(lambda band=band: room.reading("high" if band == "low" else "low") < 0.1)
