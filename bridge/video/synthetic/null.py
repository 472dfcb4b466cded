"""A transport that does nothing: a source that never gives a frame, and a sink that discards every frame."""

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
        """Mark the source as open."""
        self._is_open = True

    def read(self, timeout_s: float) -> Frame | None:
        """Wait the whole time and return None."""
        if not self._is_open:
            raise TransportError("null: is not open.")
        time.sleep(max(0.0, timeout_s))
        return None

    def close(self) -> None:
        """Mark the source as closed."""
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
    """Discards frames and counts them.

    Attributes:
        sent: frames so far.
    """

    def __init__(self) -> None:
        super().__init__("null:")
        self.sent = 0
        self._is_open = False

    def open(self) -> None:
        """Mark the sink as open."""
        self._is_open = True

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Count and discard the frame."""
        if not self._is_open:
            raise TransportError("null: is not open.")
        self.sent += 1

    def close(self) -> None:
        """Mark the sink as closed."""
        self._is_open = False

    @property
    def receivers(self) -> int:
        """Always 0."""
        return 0


def source(name: str, options: Options) -> NullSource:
    """A source without frames; the name is ignored."""
    return NullSource()


def sink(name: str, options: Options) -> NullSink:
    """A sink that discards frames; the name is ignored."""
    return NullSink()
