"""The mido backend over rtmidi2, against a strict stand-in: MIDI needs a device or a sound server that CI has not.

By hand it was run against rtmidi2 1.5 itself with Python 3.13 and JACK's server: listing, both directions, closing.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import mido
import pytest

from bridge.control.midi.backend import MidiError, open_backend

NAME = "bridge.control.midi.rtmidi2_backend"


class Cable:
    """The ports that exist and those that are open."""

    def __init__(self) -> None:
        self.ports = ["nanoKONTROL2 0", "Launchpad 1"]
        self.open: list[Port] = []
        self.sent: list[tuple[str, tuple[int, ...]]] = []
        self.broken = ""

    def send(self, name: str, *octets: int) -> None:
        for port in self.open:
            if port.name == name and isinstance(port, In) and port.callback is not None:
                port.callback(list(octets), 0.0)


class Port:
    cable: Cable

    def __init__(self) -> None:
        if self.cable.broken:
            raise RuntimeError(self.cable.broken)
        self.name = ""

    @property
    def ports(self) -> list[str]:
        return list(self.cable.ports)

    def open_port(self, port: int) -> None:
        assert not self.name, "opened twice"
        if not 0 <= port < len(self.cable.ports):
            raise RuntimeError("the 'portNumber' argument is invalid")
        self.name = self.cable.ports[port]
        self.cable.open.append(self)

    def close_port(self) -> None:
        assert self.name, "was not open"
        self.cable.open.remove(self)


class In(Port):
    callback: Callable[[list[int], float], None] | None = None
    ignored: tuple[bool, ...] = ()

    def ignore_types(self, midi_sysex: bool, midi_time: bool, midi_sense: bool) -> None:
        self.ignored = (midi_sysex, midi_time, midi_sense)


class Out(Port):
    def send_raw(self, *octets: int) -> None:
        if self.name not in self.cable.ports:
            raise RuntimeError("error sending message")
        self.cable.sent.append((self.name, octets))


@pytest.fixture
def cable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cable]:
    module: Any = types.ModuleType("rtmidi2")
    cable = Port.cable = Cable()
    module.MidiIn, module.MidiOut = In, Out
    monkeypatch.setitem(sys.modules, "rtmidi2", module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield cable
    sys.modules.pop(NAME, None)


def test_ports_are_listed_opened_heard_and_closed(cable: Cable) -> None:
    backend = mido.Backend(NAME, load=True)
    assert backend.get_input_names() == backend.get_output_names() == cable.ports
    heard: list[mido.Message] = []
    port = backend.open_input("Launchpad 1", callback=heard.append)
    cable.send("Launchpad 1", 0xB1, 7, 100)
    cable.send("nanoKONTROL2 0", 0xB1, 7, 1)
    cable.send("Launchpad 1", 0xB1, 7)  # half a message
    cable.send("Launchpad 1", 0x91, 60, 5)
    assert heard == [
        mido.Message("control_change", channel=1, control=7, value=100),
        mido.Message("note_on", channel=1, note=60, velocity=5),
    ]
    assert cable.open[0].ignored == (True, False, True)  # sensing would flood; the clock is wanted
    port.close()
    assert cable.open == []
    plain = backend.open_input("Launchpad 1")
    cable.send("Launchpad 1", 0xB0, 1, 2)
    assert plain.receive(block=False) == mido.Message("control_change", control=1, value=2)
    plain.close()


def test_the_clock_arrives_and_no_message_is_made_anew_for_it(cable: Cable) -> None:
    heard: list[mido.Message] = []
    port = mido.Backend(NAME, load=True).open_input("Launchpad 1", callback=heard.append)
    for octets in ((0xFA,), (0xF8,), (0xF8,), (0xFC,), (0xF2, 0x10, 0x01), (0xFB,), (0xF2,), (0xF9,)):
        cable.send("Launchpad 1", *octets)
    port.close()
    names = [message.type for message in heard]
    assert names == ["start", "clock", "clock", "stop", "songpos", "continue"], "half a message is dropped"
    assert heard[4].pos == 144
    assert heard[1] is heard[2]


def test_messages_reach_the_lights(cable: Cable) -> None:
    port = mido.Backend(NAME, load=True).open_output("nanoKONTROL2 0")
    port.send(mido.Message("control_change", channel=2, control=9, value=127))
    assert cable.sent == [("nanoKONTROL2 0", (0xB2, 9, 127))]
    cable.ports.remove("nanoKONTROL2 0")
    with pytest.raises(OSError, match="error sending"):
        port.send(mido.Message("control_change", control=9, value=1))
    port.close()


def test_a_missing_port_is_an_oserror(cable: Cable) -> None:
    backend = open_backend(NAME)
    with pytest.raises(OSError, match="unknown port 'Nothing'"):
        backend.open_input("Nothing")
    cable.ports.append("Late 2")  # plugged in later
    assert "Late 2" in backend.get_input_names()


def test_a_system_without_midi_is_reported(cable: Cable) -> None:
    cable.broken = "MidiInAlsa::initialize: error creating ALSA sequencer client object."
    with pytest.raises(MidiError, match="no MIDI"):
        open_backend(NAME)


def test_the_backend_is_the_one_that_is_installed() -> None:
    from bridge.control.midi.backend import BACKEND

    newer = sys.version_info >= (3, 13)
    assert (BACKEND == NAME) == newer
    assert importlib.util.find_spec("rtmidi2" if newer else "rtmidi") is not None
