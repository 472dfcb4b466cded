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
        log: what was asked, in order.
        current: the stream of the thread; at first the default stream, which has the lowest priority.
    """

    def __init__(self, patch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.log: list[str] = []
        fake = self

        class Stream:
            def __init__(self, device: torch.device | None = None, priority: int = 0) -> None:
                assert priority <= 0, "torch takes the lowest priority, 0, instead"
                self.device, self.priority = device, priority

        class Event:
            def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
                self.blocking = blocking

            def record(self, stream: Stream | None = None) -> None:
                fake.log.append(f"event in a stream of priority {(stream or fake.current).priority}")

            def synchronize(self) -> None:
                fake.log.append("the host sleeps" if self.blocking else "the host spins")

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
