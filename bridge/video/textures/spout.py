"""Spout input and output (Windows): pictures shared between programs on one graphics card, through SpoutGL.

Whatever sends or receives needs a GL context on its thread; a `GlThread` provides one. Lists need none. Contexts, names
and sizes were run with the real library under Wine; pictures only with `tests.fakes.spoutgl`, which raises on every
known misuse. `tests/bridge/video/test_spout_library.py` holds both to the same behaviour.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from bridge.video.base import DEFAULT_NAME, Guide, Options, Sink, Source, SourceInfo
from bridge.video.names import check_spout
from bridge.video.pixels import FourChannelConverter
from bridge.video.textures import adapters
from bridge.video.textures.gl_thread import GlThread
from bridge.video.textures.guides import steps
from bridge.video.textures.names import check_free
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

GL_RGBA = 0x1908
GL_BGRA = 0x80E1

_LOST_S = 1.0
_LOOK_S = 0.5
_POLL_MS = 20
_PAUSE_S = 0.002
_STILL_S = 0.1
"""How often a picture that does not change is passed on, where Spout does not count frames."""

_BLACK = np.full((16, 16, 4), (0, 0, 0, 255), np.uint8)

OTHER_ADAPTER = (
    "It may run on another graphics adapter: choose the same one for both programs, in Windows' settings for System, "
    "Display, Graphics."
)


def library() -> ModuleType:
    """The Spout binding.

    Raises:
        TransportError: it is not installed, or this is not Windows.
    """
    try:
        return importlib.import_module("SpoutGL")
    except ImportError as error:
        raise TransportError(
            f"Spout cannot be loaded: {error}.",
            "On Windows: pip install SpoutGL, and the Microsoft Visual C++ runtime. Elsewhere use ndi:.",
        ) from error


class SpoutSource(Source):
    """The newest picture of a Spout sender; of the active one when the name is empty."""

    def __init__(self, name: str) -> None:
        super().__init__(f"spout:{name}")
        self._name = name
        self._thread: GlThread | None = None
        self._receiver: Any = None
        self._pixels: np.ndarray | None = None
        self._before: np.ndarray | None = None
        self._seq = 0
        self._last_frame = float("-inf")
        self._next_look = float("-inf")
        self._connected = False
        self._seen = ""

    def open(self) -> None:
        """Create the receiver and its context."""
        if self._thread is None:
            check_spout(self._name)
            spout = library()
            self._thread = GlThread("Spout source")
            self._seq, self._pixels, self._before, self._seen = 0, None, None, ""
            try:
                self._receiver = self._thread.do(lambda: _with_context(spout.SpoutReceiver()))
            except TransportError:
                self._stop_thread()
                raise
            if self._name:
                self._thread.do(lambda: self._receiver.setReceiverName(self._name))

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame; waits for the sender's signal."""
        if self._thread is None:
            raise TransportError(f"{self.uri} is not open.")
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, int((deadline - time.monotonic()) * 1000))
            frame = self._thread.do(functools.partial(self._receive, min(left_ms, _POLL_MS)))
            if frame is not None or left_ms == 0:
                return frame

    def close(self) -> None:
        """Release the receiver and its context."""
        if self._thread is not None:
            receiver, self._receiver = self._receiver, None
            self._connected = False
            try:
                self._thread.do(lambda: (receiver.releaseReceiver(), receiver.closeOpenGL()))
            finally:
                self._stop_thread()

    @property
    def info(self) -> SourceInfo:
        """Name and size; Spout has no frame rate."""
        height, width = self._pixels.shape[:2] if self._pixels is not None else (0, 0)
        return SourceInfo(self.uri, self._name or "Active Spout sender", width, height)

    @property
    def connected(self) -> bool:
        """Whether a sender is connected."""
        return self._connected

    @property
    def problem(self) -> str:
        """What the source is waiting for."""
        if self._connected or self._thread is None:
            return ""
        if self._seen:
            return f"The Spout sender {self._seen!r} is there, but its picture cannot be opened. {OTHER_ADAPTER}"
        return f"Waiting for the Spout sender {self._name!r}." if self._name else "Waiting for a Spout sender."

    def _receive(self, wait_ms: int) -> Frame | None:
        receiver = self._receiver
        got = receiver.receiveImage(self._pixels, GL_RGBA, False, 0)
        if receiver.isUpdated():  # another sender or size: nothing was received, as the array has the wrong size
            self._pixels = np.empty((receiver.getSenderHeight(), receiver.getSenderWidth(), 4), np.uint8)
            self._before = None
            return None
        now = time.monotonic()
        if got and self._pixels is not None and self._is_new(now):
            self._last_frame, self._connected, self._seen = now, True, ""
            captured = time.monotonic_ns()
            frame = Frame(self._pixels.copy(), PixelFormat.RGBA, captured, captured, self._seq)
            self._seq += 1
            spare = np.empty_like(self._pixels) if self._before is None else self._before
            self._before, self._pixels = self._pixels, spare
            return frame
        self._connected = bool(got) and now - self._last_frame < _LOST_S
        if not self._connected and now >= self._next_look:
            self._next_look, self._seen = now + _LOOK_S, _seen(receiver, self._name)
        if got and self._name:
            receiver.waitFrameSync(self._name, wait_ms)
        if time.monotonic() - now < _PAUSE_S:  # the sender never signals, or the signal is old
            time.sleep(min(wait_ms / 1000, _PAUSE_S))
        return None

    def _is_new(self, now: float) -> bool:
        """Whether the picture that was just received is a new one.

        Spout counts frames only where its program SpoutSettings switched that on; elsewhere `isFrameNew` is always true
        and the picture is compared with the one before.
        """
        receiver, pixels = self._receiver, self._pixels
        assert pixels is not None
        if (receiver.getSenderHeight(), receiver.getSenderWidth()) != pixels.shape[:2]:
            return False  # the sender's new picture cannot be opened: the array still holds an old one
        if receiver.isFrameCountEnabled():
            return bool(receiver.isFrameNew())
        if self._before is None or now - self._last_frame >= _STILL_S:
            return True
        return not np.array_equal(pixels.view(np.uint32), self._before.view(np.uint32))

    def _stop_thread(self) -> None:
        assert self._thread is not None
        self._thread.close()
        self._thread = None


class SpoutSink(Sink):
    """A Spout sender. Spout carries no metadata."""

    def __init__(self, name: str) -> None:
        super().__init__(f"spout:{name}")
        self._name = name or DEFAULT_NAME
        self._thread: GlThread | None = None
        self._sender: Any = None
        self._converter = FourChannelConverter()

    def open(self) -> None:
        """Create the sender and its context."""
        if self._thread is None:
            spout = library()
            self._thread = GlThread("Spout sink")
            try:
                self._sender = self._thread.do(lambda: self._make(spout))
            except TransportError:
                self._thread.close()
                self._thread = None
                raise

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Send one frame and signal it."""
        if self._thread is None:
            raise TransportError(f"{self.uri} is not open.")
        pixels, kind = self._converter.copy(frame)
        self._thread.do(lambda: self._send(pixels, GL_BGRA if kind is PixelFormat.BGRA else GL_RGBA))

    def close(self) -> None:
        """Release the sender and its context."""
        if self._thread is not None:
            sender, self._sender = self._sender, None
            try:
                self._thread.do(lambda: (sender.releaseSender(), sender.closeOpenGL()))
            finally:
                self._thread.close()
                self._thread = None

    @property
    def receivers(self) -> int:
        """Always -1: Spout does not know."""
        return -1

    def _make(self, spout: ModuleType) -> Any:
        check_spout(self._name)
        _check_free(spout, self._name)
        sender = _with_context(spout.SpoutSender())
        try:
            sender.setSenderName(self._name)
            # Spout lists a sender from its first picture on: send one, so that no other program takes the name now.
            if not sender.sendImage(_BLACK, _BLACK.shape[1], _BLACK.shape[0], GL_RGBA, False, 0):
                raise TransportError("Spout did not take a picture.", "Check the graphics driver.")
            if sender.getCPUshare():
                log.warning("spout:%s: %s", self._name, " ".join(adapters.SLOW))
        except BaseException:
            sender.releaseSender()
            sender.closeOpenGL()
            raise
        return sender

    def _send(self, pixels: np.ndarray, form: int) -> None:
        height, width = pixels.shape[:2]
        if not self._sender.sendImage(pixels, width, height, form, False, 0):
            raise TransportError(f"Spout did not take a picture of {width}x{height}.", "Check the graphics driver.")
        self._sender.setFrameSync(self._name)


def _with_context(made: Any) -> Any:
    if not made.createOpenGL():
        raise TransportError("Spout could not create an OpenGL context.", "Check the graphics driver.")
    return made


def _names(receiver: Any) -> list[str]:
    """Names of all senders. Spout also forgets those that ended without saying so."""
    try:
        return list(receiver.getSenderList())
    except UnicodeDecodeError as error:  # programs choose any bytes; the binding takes them for UTF-8
        shown = error.object.decode("cp1252", "replace")
        raise TransportError(
            f"The Spout senders cannot be listed: the name {shown!r} is not in UTF-8.",
            "Rename that sender with plain letters; the others can still be used by their names.",
        ) from error


def _check_free(spout: ModuleType, name: str) -> None:
    receiver = spout.SpoutReceiver()
    with contextlib.suppress(TransportError):
        _names(receiver)  # a sender that was killed would still hold the name, and Spout would add "_1" to ours
    check_free(name, lambda other: receiver.getSenderInfo(other) is not None, "Spout sender")


def _seen(receiver: Any, name: str) -> str:
    """The name of the wanted sender if it is in Spout's list and could not be opened, else an empty string."""
    if receiver.getSenderWidth():
        return ""  # it was opened, and shows nothing new
    try:
        wanted = name or receiver.getActiveSender() or ""
    except UnicodeDecodeError:
        return ""
    return str(wanted) if wanted and receiver.getSenderInfo(wanted) is not None else ""


def guides(name: str) -> tuple[Guide, ...]:
    """How to receive an output in other programs."""
    return steps(name or DEFAULT_NAME, "Spout", "Spout2 Capture (plug-in)")


def require() -> None:
    """Raise a `TransportError` if Spout cannot be used on this machine."""
    library()


def source(name: str, options: Options) -> SpoutSource:
    """A sender's picture by its name."""
    return SpoutSource(name)


def sink(name: str, options: Options) -> SpoutSink:
    """A sender by name."""
    return SpoutSink(name)


def sources(options: Options) -> list[SourceInfo]:
    """Every sender on this machine, with its size."""
    receiver = library().SpoutReceiver()
    found = []
    for name in _names(receiver):
        sender = receiver.getSenderInfo(name)
        if sender is not None:  # it can end in between
            found.append(SourceInfo(f"spout:{name}", name, sender.width, sender.height))
    return found


def limits() -> tuple[tuple[str, str], ...]:
    """What works on this machine, but worse than it could: pictures that go through main memory, several adapters."""
    spout = library()
    thread = GlThread("Spout")
    try:
        through_memory = thread.do(lambda: _through_memory(spout))
    finally:
        thread.close()
    return adapters.limits(through_memory, adapters.names())


def _through_memory(spout: ModuleType) -> bool:
    """Whether Spout copies pictures through main memory; it finds out when it first looks for a sender."""
    receiver = _with_context(spout.SpoutReceiver())
    try:
        receiver.receiveImage(None, GL_RGBA, False, 0)
        return bool(receiver.getCPUshare())
    finally:
        receiver.releaseReceiver()
        receiver.closeOpenGL()
