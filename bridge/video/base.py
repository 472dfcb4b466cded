"""What every video transport is: a source, a sink and a list, in one module that is imported only when chosen.

A place that video comes from or goes to is written `transport:name`, for instance `ndi:STUDIO (OBS)`,
`file:/shows/intro.mp4` or `pattern:dance`. `open_source` and `open_sink` find the transport's module by the part
before the colon. The module offers `source(name, options)`, `sink(name, options)`, `sources(options)` and, where it
needs something that may be missing, `require()`, which raises a `TransportError`; it leaves out what it has not.

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
import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any, Self

from engine.errors import TransportError
from engine.frame import Frame

TRANSPORTS: dict[str, str] = {
    "ndi": "NDI source or output on this machine or the network",
    "spout": "Spout sender on this machine (Windows)",
    "syphon": "Syphon server on this machine (macOS)",
    "file": "video file, looped",
    "camera": "camera or capture card",
    "screen": "a monitor's picture",
    "pattern": "moving test picture",
    "null": "nothing: never gives a frame, throws away what it gets",
}
"""Every transport, as its module's name in this package, and what it is."""

DEFAULT_FPS = Fraction(30)


@dataclass(frozen=True, slots=True)
class Options:
    """Wishes for a source or sink. A transport takes from them what it can and ignores the rest.

    Attributes:
        width, height: wanted size in pixels; 0 leaves it to the transport.
        fps: wanted frame rate (and the rate that a sink announces); None leaves it to the transport.
        alpha: whether a sink announces an alpha channel.
        extra_ips: addresses to look for NDI sources at, beside those found by mDNS.
    """

    width: int = 0
    height: int = 0
    fps: Fraction | None = None
    alpha: bool = False
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
class Tally:
    """Whether a mixer shows this sink's picture on air (`program`) or in preview."""

    program: bool = False
    preview: bool = False


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

    @property
    def tally(self) -> Tally:
        """What mixers say about this output; nothing where the transport has no tally."""
        return Tally()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def parse_uri(uri: str) -> tuple[str, str]:
    """Split `transport:name`.

    Raises:
        TransportError: no such transport; the remedy names those that exist.
    """
    scheme, colon, name = uri.strip().partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in TRANSPORTS:
        known = ", ".join(f"{known}:" for known in TRANSPORTS)
        raise TransportError(f"{uri!r} names no video transport.", f"Begin it with one of {known}")
    return scheme, name.strip()


def open_source(uri: str, options: Options | None = None) -> Source:
    """Open a source by its uri.

    Raises:
        TransportError: unknown transport, one that has no source, or one that cannot be opened here.
    """
    return _make("source", uri, options)


def open_sink(uri: str, options: Options | None = None) -> Sink:
    """Open a sink by its uri.

    Raises:
        NameTakenError: the name is in use on this machine.
        TransportError: unknown transport, one that has no sink, or one that cannot be opened here.
    """
    return _make("sink", uri, options)


def list_sources(transports: tuple[str, ...] | None = None, options: Options | None = None) -> list[SourceInfo]:
    """Everything that can be seen now (looking for NDI sources takes about two seconds).

    Transports that cannot work here are left out; `unavailable` says why.
    """
    found: list[SourceInfo] = []
    for scheme in transports or tuple(TRANSPORTS):
        module = _module(scheme)
        if hasattr(module, "sources") and not unavailable(scheme):
            found += module.sources(options or Options())
    return found


def unavailable(scheme: str) -> str:
    """Why a transport cannot work on this machine, with the remedy; empty when it can."""
    module = _module(scheme)
    if hasattr(module, "require"):
        try:
            module.require()
        except TransportError as error:
            return str(error)
    return ""


def _make(what: str, uri: str, options: Options | None) -> Any:
    scheme, name = parse_uri(uri)
    module = _module(scheme)
    if not hasattr(module, what):
        raise TransportError(f"{scheme}: has no {'output' if what == 'sink' else 'input'} ({uri!r}).")
    made = getattr(module, what)(name, options or Options())
    made.open()
    return made


def _module(scheme: str) -> ModuleType:
    return importlib.import_module(f"bridge.video.{scheme}")


class Ticker:
    """Steady frame times of a source that makes its own pictures; drops what the caller was too slow for.

    Frame `n` is due `n / fps` seconds after the start. Sleeps at most until `timeout_s` is over.
    """

    def __init__(self, fps: Fraction) -> None:
        if fps <= 0:
            raise TransportError(f"A frame rate must be positive, got {float(fps):g}.")
        self.fps = fps
        self._start_ns = time.monotonic_ns()
        self._next = 0

    def wait(self, timeout_s: float) -> tuple[int, int] | None:
        """Wait for the next frame's time; returns its number and how many were skipped, or None if not yet due."""
        now = time.monotonic_ns()
        due = self._start_ns + self.at(self._next)
        if due > now:
            time.sleep(min((due - now) / 1e9, max(0.0, timeout_s)))
            now = time.monotonic_ns()
            if due > now:
                return None
        number = int((now - self._start_ns) * self.fps / 1_000_000_000)
        skipped = max(0, number - self._next)
        number = self._next + skipped
        self._next = number + 1
        return number, skipped

    def at(self, number: int) -> int:
        """Time of a frame in ns since the start."""
        return int(number * 1_000_000_000 / self.fps)
