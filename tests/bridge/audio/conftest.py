"""The sound service of a bridge, with real controls, telemetry and signals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.audio.service import AudioService
from bridge.audio.source import AudioSource, open_source
from bridge.control.origin import Origin, Trust
from bridge.control.signals import Signals
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from engine.control import PREFIX

PAGE = Origin("web:1", Trust.MACHINE)


class Room:
    """The service, and what it says."""

    def __init__(self) -> None:
        self.others = set(threading.enumerate())  # a bridge of other tests may still run in this process
        self.store, self.telemetry, self.signals = ControlStore(TABLE), Telemetry(TABLE), Signals()
        self.errors: list[str] = []
        self.telemetry.listen_errors(lambda topic, text: self.errors.append(text))
        self.playing = ""
        self.make: Callable[[str, Callable[[], str]], AudioSource] = open_source
        self.audio = AudioService(
            self.store,
            self.telemetry,
            self.signals,
            lambda: self.playing,
            lambda uri, playing: self.make(uri, playing),
        ).start()

    def say(self, address: str, *args: Any, origin: Origin = PAGE) -> list[Any]:
        """Send a message; returns the errors that are answered."""
        answers: list[Any] = []
        self.store.handle(PREFIX + address, args, origin, lambda topic, values: answers.append(values))
        return answers

    def threads(self) -> list[str]:
        """Names of the threads of its service and of its sources."""
        names = (thread.name for thread in set(threading.enumerate()) - self.others)
        return [name for name in names if name.startswith("audio")]

    def reading(self, name: str) -> Any:
        return self.telemetry.snapshot().get(f"audio_{name}")

    def signal(self, name: str) -> float:
        found = self.signals.newest(f"audio/{name}")
        return found[0] if found else 0.0


def eventually(condition: Callable[[], object], what: str = "", seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen in time: {what}"
        time.sleep(0.005)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setattr("bridge.pipeline.endpoints.retry.FIRST_S", 0.05)
    made = Room()
    yield made
    made.audio.stop()
