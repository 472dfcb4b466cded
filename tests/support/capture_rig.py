"""A capture thread, and what it gave and told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Self

from bridge.control.store import ControlStore
from bridge.pipeline.capture import Capture
from bridge.pipeline.stages.table import STAGES
from bridge.table import TABLE
from bridge.video.base import Options, SourceInfo
from engine.frame import Frame
from tests.support import bad_transport

WIDTH, HEIGHT = SIZE = (64, 48)


class CaptureRig:
    """A capture thread whose input is a test picture, or another address.

    Attributes:
        told: what it told: (topic, text) each.
        listed: the list of inputs.
        frames: how many frames it gave.
        widths: the sizes of all of them.
    """

    def __init__(self, uri: str = "pattern:bars") -> None:
        self.store = ControlStore(TABLE)
        self.told: list[tuple[str, str]] = []
        self.listed: list[SourceInfo] = []
        self.frames = 0
        self.widths: set[tuple[int, int]] = set()
        self.capture = Capture(
            uri,
            Options(width=WIDTH, height=HEIGHT),
            *SIZE,
            self.store,
            STAGES,
            lambda: self.listed,
            self.take,
            lambda *error: self.told.append(error),
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """The thread runs; the transport of `bad_transport` can be chosen."""
        with bad_transport.registered():
            self.capture.start()
            try:
                yield self
            finally:
                bad_transport.RELEASE.set()
                self.capture.stop()

    def take(self, frame: Frame, small: Frame) -> None:
        self.frames += 1
        self.widths.add((frame.width, frame.height))

    @property
    def shown(self) -> str:
        info = self.capture.info
        return info.uri if info is not None else ""

    def until(self, holds: Callable[[], object], what: str, seconds: float = 30.0) -> float:
        """Wait until it holds; returns for how long, in s."""
        began = time.monotonic()
        while not holds():
            state = f"shown {self.shown!r}, told {self.told}, {self.capture.second.readings()}"
            assert time.monotonic() < began + seconds, f"{what}; {state}"
            time.sleep(0.005)
        return time.monotonic() - began

    def until_told(self, words: str, topic: str = "/input") -> None:
        self.until(lambda: any(words in text for at, text in self.told if at == topic), f"no error {words!r}")

    def goes_on(self, count: int = 3) -> None:
        wanted = self.frames + count
        self.until(lambda: self.frames >= wanted, "no frames")
