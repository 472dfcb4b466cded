"""A transport whose sources and sinks raise or hang where their name says, for tests.

`bad:open`, `bad:read`, `bad:info`, `bad:problem` and `bad:close` raise there; `bad:open hangs`, `bad:read hangs` and
`bad:close hangs` do not return before `RELEASE` is set; every other name works.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from bridge.video import table
from bridge.video.base import Options, Sink, Source, SourceInfo
from bridge.video.table import Transport
from engine.frame import Frame

RELEASE = threading.Event()
"""Lets go of everything that hangs."""

ERROR: list[type[Exception]] = [RuntimeError]
"""What is raised."""

SENT: list[Frame] = []
"""The frames that were sent."""

OPENED: list[Sink] = []
"""Every successful opening of a sink."""

ROW = Transport("bad", __name__, "raises and hangs", reads="where it fails", writes="where it fails")


@contextmanager
def registered() -> Iterator[None]:
    """The transport is in the table; afterwards it is not, and nothing hangs any more."""
    RELEASE.clear()
    SENT.clear()
    OPENED.clear()
    ERROR[:] = [RuntimeError]
    table.register(ROW)
    try:
        yield
    finally:
        table.unregister("bad")
        RELEASE.set()


class _Bad:
    name = ""

    def at(self, place: str) -> None:
        if self.name.split(" ")[0] != place:
            return
        if self.name.endswith("hangs"):
            RELEASE.wait(60.0)
        else:
            raise ERROR[0](f"a defect in {place}")


class BadSource(Source, _Bad):
    """Grey pictures, 50 a second, until it fails."""

    def __init__(self, name: str) -> None:
        super().__init__(f"bad:{name}")
        self.name = name

    def open(self) -> None:
        self.at("open")

    def read(self, timeout_s: float) -> Frame | None:
        self.at("read")
        time.sleep(min(timeout_s, 0.02))
        now = time.monotonic_ns()
        return Frame(np.full((48, 64, 3), 90, np.uint8), pts_ns=now, captured_ns=now)

    def close(self) -> None:
        self.at("close")

    @property
    def info(self) -> SourceInfo:
        self.at("info")
        return SourceInfo(self.uri, self.uri, 64, 48, 50.0)

    @property
    def connected(self) -> bool:
        return True

    @property
    def problem(self) -> str:
        self.at("problem")
        return ""


class BadSink(Sink, _Bad):
    """Keeps what it gets, until it fails."""

    def __init__(self, name: str) -> None:
        super().__init__(f"bad:{name}")
        self.name = name

    def open(self) -> None:
        self.at("open")
        OPENED.append(self)

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        self.at("send")
        SENT.append(frame)

    def close(self) -> None:
        self.at("close")

    @property
    def receivers(self) -> int:
        return -1


def source(name: str, options: Options) -> BadSource:
    return BadSource(name)


def sink(name: str, options: Options) -> BadSink:
    return BadSink(name)
