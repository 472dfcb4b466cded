"""Sound devices and loopback with strict stand-ins of their libraries: this needs no sound card."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bridge.audio import device
from bridge.audio.device import DeviceSound
from bridge.audio.loopback import LoopbackSound
from bridge.audio.source import MOST_WAITING, AudioError, Blocks, library
from tests.bridge.audio.conftest import Room, eventually
from tests.bridge.audio.test_analysis import HOP, tone
from tests.fakes import soundcard, sounddevice


class Feed:
    """Plays a tone of 80 Hz into every device that is plugged in, until it is stopped."""

    def __init__(self, cards: sounddevice.Library) -> None:
        self._cards = cards
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        sound = tone(80.0, 0.1, 1.0)
        number = 0
        while not self._ending.wait(0.005):
            self._cards.play(sound[number * HOP : (number + 1) * HOP])
            number = (number + 1) % (len(sound) // HOP - 1)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[sounddevice.Library]:
    made = sounddevice.fresh()
    monkeypatch.setitem(sys.modules, "sounddevice", made)
    yield made
    assert device._streams == 0, "every stream was closed"


def test_a_device_is_heard_pulled_said_and_heard_again_when_it_is_back(
    room: Room, cards: sounddevice.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "SILENT_S", 0.3)
    cards.plug("Built-in Mic", inputs=1)
    cards.plug("USB Mixer")
    with Feed(cards):
        room.say("/audio/source", "device:usb")
        eventually(lambda: room.reading("low") and room.reading("low") > 0.9)
        assert room.reading("heard") == "USB Mixer, 48000 Hz" and room.errors == []
        cards.pull("USB Mixer")
        eventually(lambda: room.reading("state") == "waiting")
        eventually(lambda: room.reading("low") == 0.0 == room.signal("low"))
        eventually(lambda: len(room.errors) == 2)
        assert room.errors[0].startswith("USB Mixer, 48000 Hz gives no sound any more.")
        assert room.errors[1] == "There is no sound device 'usb' with an input. There are: 'Built-in Mic'."
        cards.plug("USB Mixer")
        eventually(lambda: room.reading("low") > 0.9, "it to be heard again")
        assert room.reading("state") == "running" and len(room.errors) == 2, "each fault is said once"
        room.say("/audio/source", "off")
        eventually(lambda: room.reading("state") == "off")
    eventually(lambda: device._streams == 0)


def test_a_name_may_be_a_part_the_whole_name_counts_more_and_none_is_the_default(cards: sounddevice.Library) -> None:
    for name in ("Line 2 (monitor)", "Line 2", "Output only"):
        cards.plug(name, inputs=0 if "only" in name else 2)
    for asked, found in (("line 2", "Line 2"), ("MONITOR", "Line 2 (monitor)"), ("", "Line 2 (monitor)")):
        source = DeviceSound(asked)
        source.open()
        assert source.title == f"{found}, 48000 Hz"
        source.close()
        source.close()
    with pytest.raises(AudioError, match=r"There are: 'Line 2 \(monitor\)', 'Line 2'\."):
        DeviceSound("output").open()


def test_of_windows_drivers_the_quick_one_is_taken(cards: sounddevice.Library) -> None:
    cards.apis = ["MME", "Windows WASAPI"]
    cards.plug("Line", rate=44100.0, api=0, key="mme")
    cards.plug("Line", rate=48000.0, api=1, key="Line")
    for name in ("Line", ""):
        source = DeviceSound(name)
        source.open()
        assert source.title == "Line, 48000 Hz"
        source.close()


def test_without_devices_or_the_library_it_is_said_what_to_do(
    cards: sounddevice.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AudioError, match="no sound device with an input"):
        DeviceSound("").open()
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(AudioError, match=r"tidecast\[audio\]"):
        DeviceSound("").open()
    with pytest.raises(AudioError, match="library no_such_library_of_sound"):
        library("no_such_library_of_sound")


HEARD = """
import sys, time
from bridge.audio.device import DeviceSound
sound = DeviceSound("tidecast")
sound.open()
print(sound.title)
limit = time.monotonic() + 60.0
while True:
    block = sound.read(1.0)
    if block is not None and abs(float(block.samples[0]) - 0.25) < 1e-6:
        break
    assert time.monotonic() < limit, block
sound.close()
print(block.rate, block.samples.dtype, block.samples.ndim)
"""
DEVICE = """
pcm.tidecast {{ type file slave.pcm null file /dev/null infile {file} format raw }}
pcm.!default tidecast
"""


@pytest.mark.skipif(ctypes.util.find_library("portaudio") is None or sys.platform != "linux", reason="needs PortAudio")
def test_the_library_itself_reads_a_device_of_alsa(tmp_path: Path) -> None:
    """A device of ALSA that plays a file, as fast as it is read."""
    pytest.importorskip("sounddevice")
    file = tmp_path / "quarter.raw"
    file.write_bytes(np.full(1 << 24, 0.25, np.float32).tobytes())
    (tmp_path / ".asoundrc").write_text(DEVICE.format(file=file))
    command = [sys.executable, "-c", HEARD]
    heard = subprocess.run(
        command, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert heard.returncode == 0, heard.stderr
    title, kind = heard.stdout.splitlines()[-2:]
    assert title.startswith("tidecast, ") and kind.endswith(" float32 1")


def test_a_device_that_another_program_holds_is_an_error_that_is_tried_again(
    room: Room, cards: sounddevice.Library
) -> None:
    cards.plug("Held")
    cards.plugged["Held"]["default_samplerate"] = 48000.0
    real = sounddevice.InputStream.start
    fails = [True]

    def start(self: sounddevice.InputStream) -> None:
        if fails:
            raise sounddevice.PortAudioError("Device unavailable")
        real(self)

    cards.InputStream.start = start  # type: ignore[method-assign]
    try:
        room.say("/audio/source", "device:held")
        eventually(lambda: room.errors)
        assert "Device unavailable" in room.errors[0]
        fails.clear()
        with Feed(cards):
            eventually(lambda: room.reading("state") == "running")
            room.say("/audio/source", "off")
            eventually(lambda: room.reading("state") == "off" and device._streams == 0)
    finally:
        sounddevice.InputStream.start = real  # type: ignore[method-assign]


def test_the_queue_keeps_the_newest_blocks() -> None:
    queue = Blocks()
    for number in range(3 * MOST_WAITING):
        queue.put(tone(80.0)[:HOP, None] * 0.0 + number, 48000)
    taken = [queue.take(0.0) for _ in range(MOST_WAITING)]
    assert [block.samples[0] for block in taken if block is not None] == list(range(2 * MOST_WAITING, 3 * MOST_WAITING))
    assert queue.take(0.0) is None


@pytest.mark.skipif(sys.platform == "darwin", reason="has no loopback")
def test_loopback_hears_the_default_output_waits_and_comes_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    speakers, other = soundcard.Output("Speakers (Loopback)", True), soundcard.Output("HDMI", True)
    monkeypatch.setitem(sys.modules, "soundcard", soundcard.Library(soundcard.Output("Mic", False), other, speakers))
    room.say("/audio/source", "loopback:")
    eventually(lambda: room.reading("heard") == "what Speakers (Loopback) plays")
    assert room.reading("state") == "waiting" and room.errors == [], "nothing is played, which gives no data"
    for number in range(40):
        speakers.sound.put(tone(80.0)[number * HOP : (number + 1) * HOP])
    eventually(lambda: room.signal("low") > 0.9)
    speakers.sound.put(None)  # it is pulled
    eventually(lambda: any("0x88890004" in text for text in room.errors))
    for number in range(40):
        speakers.sound.put(tone(80.0)[number * HOP : (number + 1) * HOP])
    eventually(lambda: room.signal("low") > 0.9)
    room.say("/audio/source", "loopback:hdmi")
    eventually(lambda: room.reading("heard") == "what HDMI plays")
    speakers.sound.put(tone(80.0)[:HOP])  # the thread that waited for it ends
    eventually(lambda: speakers.recorded)
    other.sound.put(tone(80.0)[:HOP])


@pytest.mark.skipif(sys.platform == "darwin", reason="has no loopback")
def test_loopback_says_what_to_do_on_a_mac_and_which_outputs_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as mac, pytest.raises(AudioError, match="BlackHole"):
        mac.setattr("sys.platform", "darwin")
        LoopbackSound("").open()
    monkeypatch.setitem(sys.modules, "soundcard", soundcard.Library(soundcard.Output("HDMI", True)))
    with pytest.raises(AudioError, match=r"There are: 'HDMI'\."):
        LoopbackSound("speakers").open()
