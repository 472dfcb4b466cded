"""A mido backend without hardware: virtual controllers in this process that can be plugged in and unplugged.

`mido.Backend("tests.fakes.midi_loopback")`. A message that a `Device` sends arrives at every port that has opened
the device. As with a real backend, unknown names and closed ports are errors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mido import Message
from mido.ports import BaseInput, BaseOutput

_lock = threading.RLock()
_devices: dict[str, Device] = {}


class Device:
    """A virtual controller that is plugged in; a test sends its messages.

    Attributes:
        received: messages for its motors and lights, oldest first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: list[Message] = []
        self._inputs: list[Input] = []

    def send(self, message: Message) -> None:
        """Move a knob: every port that has opened the device gets the message."""
        with _lock:
            if _devices.get(self.name) is not self:
                raise OSError(f"{self.name!r} is not plugged in")
            inputs = list(self._inputs)
        for port in inputs:
            port.deliver(message)


def plug(name: str) -> Device:
    """Plug in a controller of this name.

    Raises:
        OSError: if one is plugged in already.
    """
    with _lock:
        if name in _devices:
            raise OSError(f"{name!r} is already plugged in")
        _devices[name] = Device(name)
        return _devices[name]


def unplug(name: str) -> None:
    """Unplug a controller. Open ports stay open and receive nothing more, as with real drivers."""
    with _lock:
        del _devices[name]


def get_devices(**kwargs: Any) -> list[dict[str, Any]]:
    """Called by mido to list ports."""
    with _lock:
        return [{"name": name, "is_input": True, "is_output": True} for name in _devices]


def _device(name: str | None) -> Device:
    with _lock:
        if name not in _devices:
            raise OSError(f"unknown port {name!r}")
        return _devices[name]


class Input(BaseInput):  # type: ignore[misc]  # mido has no annotations
    """A port that receives the device's messages."""

    def _open(self, callback: Callable[[Message], None] | None = None, **kwargs: Any) -> None:
        self.callback = callback
        self._device = _device(self.name)
        self._device._inputs.append(self)

    def _close(self) -> None:
        self._device._inputs.remove(self)

    def deliver(self, message: Message) -> None:
        """Called by the device."""
        if self.callback is not None:
            self.callback(message)
        else:
            self._messages.append(message)


class Output(BaseOutput):  # type: ignore[misc]  # mido has no annotations
    """A port that sends messages to the device (its motors and lights)."""

    def _open(self, **kwargs: Any) -> None:
        self._device = _device(self.name)

    def _send(self, message: Message) -> None:
        with _lock:
            if _devices.get(self._device.name) is not self._device:
                raise OSError(f"{self._device.name!r} is not plugged in")
            self._device.received.append(message)
