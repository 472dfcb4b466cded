"""What every video transport is: a source, a sink and a list, in one module that is imported only when chosen.

A transport is a row of `bridge.video.table` and a module that offers `source(name, options)`, `sink(name, options)`,
`sources(options)` (those that can be seen), where it needs something that may be missing `require()`, which raises a
`TransportError`, and where other programs can take an output's pictures `guides(name)`, the steps in them. It leaves
out what it has not. `bridge.video.opening` finds and calls it.

Rules for all of them, checked by one test suite over all of them:

* `open`, `read`/`send` and `close` belong to one thread; `open` and `close` may be repeated; a closed source or sink
  can be opened again. Counters and `info` may be read from any thread.
* `read` waits for the next frame and returns only the newest: what the caller was too slow for is dropped and
  counted in `skipped`. It returns None when nothing came in time. A source that is lost does not raise: it says so
  (`connected`, `problem`), and connects again by itself when it can.
* A frame's pixels belong to the receiver of the frame. `seq` counts the frames that `read` gave.
* `send` takes any size and pixel format at any time and has finished with the array when it returns.
* What a library raises becomes a `TransportError` with a remedy.

Knows no transport's library, no model and no control.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from engine.frame import Frame

DEFAULT_FPS = Fraction(30)


@dataclass(frozen=True, slots=True)
class Options:
    """Wishes for a source or sink. A transport takes from them what it can and ignores the rest.

    Attributes:
        width, height: wanted size in pixels; 0 leaves it to the transport.
        fps: wanted frame rate (and the rate that a sink announces); None leaves it to the transport.
        extra_ips: addresses to look for NDI sources at, beside those found by mDNS.
    """

    width: int = 0
    height: int = 0
    fps: Fraction | None = None
    extra_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source that can be seen, or the one that is open.

    `width`, `height` (pixels) and `fps` are 0 while they are not known. `title` is for people, `uri` opens it.
    """

    uri: str
    title: str
    width: int = 0
    height: int = 0
    fps: float = 0.0

    def __str__(self) -> str:
        size = f" {self.width}x{self.height}" if self.width else ""
        rate = f" at {self.fps:g} fps" if self.fps else ""
        return f"{self.title}{size}{rate}"


@dataclass(frozen=True, slots=True)
class Guide:
    """How a person gets the picture into another program, and back.

    Attributes:
        program: the other program.
        steps: plain sentences, in order.
        copy: strings to paste there, or to look for.
    """

    program: str
    steps: tuple[str, ...]
    copy: tuple[str, ...]


class Source(abc.ABC):
    """Gives frames. See the module's rules.

    Attributes:
        uri: what opens it.
        skipped: frames that came but were replaced by a newer one before `read` returned.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.skipped = 0

    @abc.abstractmethod
    def open(self) -> None:
        """Start receiving; does nothing when open.

        Raises:
            TransportError: what the name stands for cannot be opened at all (a missing file, a missing library). A
                network source that is not there yet is no error.
        """

    @abc.abstractmethod
    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame that was not given yet, or None when none came within `timeout_s` seconds.

        Raises:
            TransportError: the source is not open.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give everything back; idempotent."""

    @property
    @abc.abstractmethod
    def info(self) -> SourceInfo:
        """Name, size and rate as last seen."""

    @property
    @abc.abstractmethod
    def connected(self) -> bool:
        """Whether something is there that sends frames."""

    @property
    def problem(self) -> str:
        """Why it is not connected, for people; empty when there is nothing to say."""
        return ""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Sink(abc.ABC):
    """Takes frames. See the module's rules.

    Attributes:
        uri: what opens it.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abc.abstractmethod
    def open(self) -> None:
        """Make the output visible to others; does nothing when open.

        Raises:
            NameTakenError: another sender on this machine has the name; the remedy offers a free one.
            TransportError: the transport is not available here.
        """

    @abc.abstractmethod
    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Send one frame now (pacing is the caller's business), and small strings with it where possible.

        `frame.metadata` goes along too; `metadata` wins where both have a key.

        Raises:
            TransportError: the sink is not open.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give everything back and free the name; idempotent."""

    @property
    @abc.abstractmethod
    def receivers(self) -> int:
        """How many receivers are connected; -1 where the transport cannot tell."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
