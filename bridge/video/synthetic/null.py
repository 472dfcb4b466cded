"""The transport that is never in the way: a source that gives nothing, a sink that throws everything away."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bridge.video.base import Options, Sink, Source, SourceInfo
from engine.errors import TransportError
from engine.frame import Frame


class NullSource(Source):
    """Never gives a frame."""

    def __init__(self) -> None:
        super().__init__("null:")
        self._is_open = False

    def open(self) -> None:
        """Begin to give nothing."""
        self._is_open = True

    def read(self, timeout_s: float) -> Frame | None:
        """Wait the whole time and return None."""
        if not self._is_open:
            raise TransportError("null: is not open.")
        time.sleep(max(0.0, timeout_s))
        return None

    def close(self) -> None:
        """Stop giving nothing."""
        self._is_open = False

    @property
    def info(self) -> SourceInfo:
        """A title and no size."""
        return SourceInfo(self.uri, "Nothing")

    @property
    def connected(self) -> bool:
        """Never."""
        return False


class NullSink(Sink):
    """Throws frames away and counts them.

    Attributes:
        sent: frames so far.
    """

    def __init__(self) -> None:
        super().__init__("null:")
        self.sent = 0
        self._is_open = False

    def open(self) -> None:
        """Begin to take frames."""
        self._is_open = True

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Forget the frame."""
        if not self._is_open:
            raise TransportError("null: is not open.")
        self.sent += 1

    def close(self) -> None:
        """Stop taking frames."""
        self._is_open = False

    @property
    def receivers(self) -> int:
        """Nobody."""
        return 0


def source(name: str, options: Options) -> NullSource:
    """A source of nothing."""
    return NullSource()


def sink(name: str, options: Options) -> NullSink:
    """A sink for everything."""
    return NullSink()
