"""A transport as an extension would add it: frames in a list of this process, by name. See `bridge.video.base`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction

import numpy as np

from bridge.video import table
from bridge.video.base import Guide, Options, Sink, Source, SourceInfo
from bridge.video.table import Transport
from bridge.video.ticker import Ticker
from engine.frame import Frame, PixelFormat

ROW = Transport(
    "shelf",
    __name__,
    "a shelf of this process",
    reads="the grey of its pictures, 0 to 255",
    writes="the shelf's name",
    shown_as="the shelf {name!r}",
    run_on="in one test",
)

SHELVES: dict[str, list[Frame]] = {}


@contextmanager
def registered() -> Iterator[None]:
    """The transport is in the table; afterwards it is not, and the shelves are empty."""
    table.register(ROW)
    yield
    table.unregister("shelf")
    SHELVES.clear()


class ShelfSource(Source):
    """Grey pictures, 30 a second."""

    def __init__(self, name: str) -> None:
        super().__init__(f"shelf:{name}")
        self._grey = int(name or 0)
        self._ticker: Ticker | None = None

    def open(self) -> None:
        self._ticker = Ticker(Fraction(30))

    def read(self, timeout_s: float) -> Frame | None:
        assert self._ticker is not None
        due = self._ticker.wait(timeout_s)
        if due is None:
            return None
        number, skipped = due
        self.skipped += skipped
        pixels = np.full((48, 64, 3), self._grey, np.uint8)
        now = time.monotonic_ns()
        return Frame(pixels, pts_ns=self._ticker.at(number), captured_ns=now, seq=number, format=PixelFormat.RGB)

    def close(self) -> None:
        self._ticker = None

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(self.uri, f"Grey {self._grey}", 64, 48, 30.0)

    @property
    def connected(self) -> bool:
        return self._ticker is not None


class ShelfSink(Sink):
    """Keeps the newest pictures."""

    def __init__(self, name: str) -> None:
        super().__init__(f"shelf:{name}")
        self._name = name

    def open(self) -> None:
        SHELVES.setdefault(self._name, [])

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        SHELVES[self._name] = [*SHELVES[self._name][-99:], frame]

    def close(self) -> None:
        pass

    @property
    def receivers(self) -> int:
        return -1


def source(name: str, options: Options) -> ShelfSource:
    return ShelfSource(name)


def sink(name: str, options: Options) -> ShelfSink:
    return ShelfSink(name)


def guides(name: str) -> tuple[Guide, ...]:
    return (Guide("Librarian", (f"Look at the shelf {name}.",), (name,)),)


def sources(options: Options) -> list[SourceInfo]:
    return [SourceInfo("shelf:100", "Grey 100", 64, 48, 30.0)]
