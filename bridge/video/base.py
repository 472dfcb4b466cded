"""The interface of a video transport: sources, sinks and a list of sources, in one module that is loaded when used.

A transport is a row of `bridge.video.table` and a module with these functions, each of which may be missing:

* `source(name, options)` and `sink(name, options)` make an input and an output.
* `sources(options)` lists the sources that can be seen.
* `require()` raises a `TransportError` if something that the transport needs is missing on this machine.
* `limits()` tells `doctor` what works on this machine, but worse than it could: pairs of a sentence and its remedy.
* `guides(name)` explains how to receive an output in other programs.

`bridge.video.opening` imports the module and calls them.

Rules for all transports, checked by one test suite:

* `open`, `read`/`send` and `close` belong to one thread; `open` and `close` may be repeated; a closed source or sink
  can be opened again. Counters and `info` may be read from any thread.
* `read` waits for the next frame and returns only the newest one: older frames that the caller did not read in time are
  dropped and counted in `skipped`. It returns None when no frame came in time. A source that is lost does not raise:
  `connected` and `problem` say so, and it connects again by itself when possible.
* A frame's pixels belong to the receiver of the frame. `seq` counts the frames that `read` returned.
* `send` takes any size and pixel format at any time and no longer uses the array when it returns. Where the row says
  `alpha`, it sends the frame's `alpha`, straight or premultiplied as `premultiply` says; else the whole picture.
* A library's exceptions become a `TransportError` with a remedy.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from engine.frame import Frame

DEFAULT_FPS = Fraction(30)

DEFAULT_NAME = "Tidecast"
"""Name of an output for which no name is given."""


@dataclass(frozen=True, slots=True)
class Options:
    """Preferences for a source or sink. A transport uses those that it supports and ignores the others.

    Attributes:
        width, height: preferred size in pixels; 0 leaves it to the transport.
        fps: preferred frame rate (and the rate that a sink announces); None leaves it to the transport.
        extra_ips: addresses to search for NDI sources, in addition to those found by mDNS.
    """

    width: int = 0
    height: int = 0
    fps: Fraction | None = None
    extra_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source that can be seen, or the one that is open.

    `width`, `height` (pixels) and `fps` are 0 while they are not known. `title` is shown to users, `uri` opens it.
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
    """How a user gets the picture into another program, and back.

    Attributes:
        program: the other program.
        steps: what to do, one sentence or more per step.
        copy: strings to paste into the other program or to look for in it.
    """

    program: str
    steps: tuple[str, ...]
    copy: tuple[str, ...]


class Source(abc.ABC):
    """Gives frames. See the rules in the module's docstring.

    Attributes:
        uri: the address that opens it.
        skipped: frames that were replaced by a newer one before they could be read.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.skipped = 0

    @abc.abstractmethod
    def open(self) -> None:
        """Start receiving; does nothing when open.

        Raises:
            TransportError: it cannot be opened at all (a missing file, a missing library). A network source that is
                not there yet is not an error.
        """

    @abc.abstractmethod
    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame that has not been returned yet, or None when none came within `timeout_s` seconds.

        Raises:
            TransportError: the source is not open.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release all resources; idempotent."""

    @property
    @abc.abstractmethod
    def info(self) -> SourceInfo:
        """Name, size and rate as last seen."""

    @property
    @abc.abstractmethod
    def connected(self) -> bool:
        """Whether frames are being received."""

    @property
    def problem(self) -> str:
        """Why it is not connected, as a sentence for the user; empty when there is no problem."""
        return ""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Sink(abc.ABC):
    """Takes frames. See the rules in the module's docstring.

    Attributes:
        uri: the address that opens it.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abc.abstractmethod
    def open(self) -> None:
        """Make the output visible to others; does nothing when open.

        Raises:
            NameTakenError: another sender on this machine has the name; the remedy offers a free one.
            TransportError: the transport is not available on this machine.
        """

    @abc.abstractmethod
    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Send one frame at once; the caller does the pacing.

        Transports that can carry metadata send `frame.metadata` and `metadata`; where both have a key, `metadata` wins.

        Raises:
            TransportError: the sink is not open.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release all resources and the name; idempotent."""

    @property
    @abc.abstractmethod
    def receivers(self) -> int:
        """How many receivers are connected; -1 if the transport does not know."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
