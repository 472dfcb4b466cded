"""A mido backend over rtmidi2, for Python 3.13 and newer, for which python-rtmidi has no wheels.

`mido.Backend("bridge.control.midi.rtmidi2_backend")`. Both packages wrap the library RtMidi. Its errors become
`OSError`, as in mido's own backend.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rtmidi2
from mido import Message
from mido.ports import BaseInput, BaseOutput

log = logging.getLogger(__name__)

REAL_TIME = {0xF8: Message("clock"), 0xFA: Message("start"), 0xFB: Message("continue"), 0xFC: Message("stop")}
"""The messages of a clock, by their byte. They come up to 400 times a second, so none is made anew."""


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # raised by RtMidi
        raise OSError(str(error).strip()) from error


@functools.cache
def _listing_ports() -> tuple[Any, Any]:
    """An input and an output that are never connected; they list the ports of the system."""
    return rtmidi2.MidiIn(), rtmidi2.MidiOut()


def get_devices(**_: Any) -> list[dict[str, Any]]:
    """Called by mido to list ports.

    Raises:
        OSError: if the system has no MIDI.
    """
    with _as_os_error():
        inputs, outputs = ([name for name in port.ports if name] for port in _listing_ports())
    ins = [{"name": name, "is_input": True, "is_output": False} for name in inputs]
    return [*ins, *({"name": name, "is_input": False, "is_output": True} for name in outputs)]


def _opened(port: Any, name: str | None) -> Any:
    """The port, connected to the device of this name.

    Raises:
        OSError: if it is not plugged in, or another program has it.
    """
    with _as_os_error():
        names = list(port.ports)
        if name not in names:
            raise OSError(f"unknown port {name!r}")
        port.open_port(names.index(name))
    return port


class Input(BaseInput):  # type: ignore[misc]  # mido has no annotations
    """A port that receives the device's messages; a callback is called on RtMidi's thread."""

    def _open(self, callback: Callable[[Message], None] | None = None, **_: Any) -> None:
        with _as_os_error():
            port = rtmidi2.MidiIn()
        self.callback = callback
        port.ignore_types(True, False, True)  # SysEx and active sensing; the clock is wanted
        port.callback = self._receive_octets
        self._port = _opened(port, self.name)

    def _receive_octets(self, octets: list[int], _: float) -> None:
        try:
            message = (
                REAL_TIME[octets[0]] if len(octets) == 1 and octets[0] in REAL_TIME else Message.from_bytes(octets)
            )
        except (ValueError, IndexError) as error:  # IndexError: half a song position
            log.debug("MIDI: %s sent an invalid message: %s", self.name, error)
            return
        if self.callback is not None:
            self.callback(message)
        else:
            self._messages.append(message)

    def _close(self) -> None:
        self._port.callback = None
        self._port.close_port()


class Output(BaseOutput):  # type: ignore[misc]  # mido has no annotations
    """A port that sends messages to the device (its motors and lights)."""

    def _open(self, **_: Any) -> None:
        with _as_os_error():
            port = rtmidi2.MidiOut()
        self._port = _opened(port, self.name)

    def _send(self, message: Message) -> None:
        with _as_os_error():
            self._port.send_raw(*message.bytes())

    def _close(self) -> None:
        self._port.close_port()
