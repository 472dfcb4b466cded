"""Stands in for CUDA's streams and events: checks the arguments, and notes what is asked of the GPU and in which order.

It computes nothing. It shows that the right calls are made, not that a GPU does what they say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


class FakeCuda:
    """GPUs whose streams take notes. The lowest priority of a CUDA stream is 0, and smaller numbers precede it.

    Attributes:
        log: what was asked, in order. Streams have numbers; the default stream is 0.
        current: the stream of the thread; at first the default stream, which has the lowest priority.
    """

    def __init__(self, patch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.log: list[str] = []
        self.streams = 0
        fake = self

        class Event:
            def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
                self.blocking, self.stream = blocking, ""

            def record(self, stream: Stream | None = None) -> None:
                self.stream = str(stream or fake.current)
                fake.log.append(f"event in {self.stream}")

            def synchronize(self) -> None:
                fake.log.append(f"the host {'sleeps' if self.blocking else 'spins'} until {self.stream} is there")

        class Stream:
            def __init__(self, device: torch.device | None = None, priority: int = 0) -> None:
                assert priority <= 0, "torch takes the lowest priority, 0, instead"
                self.device, self.priority, self.number = device, priority, fake.streams
                fake.streams += 1

            def __str__(self) -> str:
                return f"stream {self.number}"

            def record_event(self) -> Event:
                event = Event()
                event.record(self)
                return event

            def wait_event(self, event: Event) -> None:
                fake.log.append(f"{self} waits for {event.stream}")

            def wait_stream(self, other: Stream) -> None:
                fake.log.append(f"{self} waits for {other}")

        @contextmanager
        def stream(entered: Stream) -> Iterator[None]:
            before, self.current = self.current, entered
            try:
                yield
            finally:
                self.current = before

        self.current = Stream()
        for name, stand_in in {
            "Stream": Stream,
            "Event": Event,
            "stream": stream,
            "set_stream": lambda chosen: setattr(self, "current", chosen),
            "current_stream": lambda device=None: self.current,
            "set_device": lambda device: self.log.append(f"device {device}"),
            "device_count": lambda: count,
            "is_available": lambda: True,
        }.items():
            assert hasattr(torch.cuda, name)
            patch.setattr(torch.cuda, name, stand_in)
