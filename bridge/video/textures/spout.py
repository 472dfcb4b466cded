"""Spout input and output (Windows): pictures shared between programs on one graphics card, through SpoutGL.

Every SpoutGL object needs a GL context on the thread that uses it; a `GlThread` provides one. This module has never run
with the real library, only against `tests.fakes.spoutgl`, which raises on every known misuse; so it is kept simple.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from bridge.video.base import DEFAULT_NAME, Guide, Options, Sink, Source, SourceInfo
from bridge.video.pixels import FourChannelConverter
from bridge.video.textures.gl_thread import GlThread
from bridge.video.textures.guides import steps
from bridge.video.textures.names import check_free
from engine.errors import TransportError
from engine.frame import Frame, PixelFormat

GL_RGBA = 0x1908
GL_BGRA = 0x80E1

_LOST_S = 1.0
_POLL_MS = 20


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
        self._seq = 0
        self._last_frame = 0.0
        self._connected = False

    def open(self) -> None:
        """Create the receiver and its context."""
        if self._thread is None:
            spout = library()
            self._thread = GlThread("Spout source")
            self._seq, self._pixels = 0, None
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
        return f"Waiting for the Spout sender {self._name!r}." if self._name else "Waiting for a Spout sender."

    def _receive(self, wait_ms: int) -> Frame | None:
        receiver = self._receiver
        got = receiver.receiveImage(self._pixels, GL_RGBA, False, 0)
        if receiver.isUpdated():  # another sender or size: nothing was received, as the array has the wrong size
            self._pixels = np.empty((receiver.getSenderHeight(), receiver.getSenderWidth(), 4), np.uint8)
            return None
        now = time.monotonic()
        if got and self._pixels is not None and receiver.isFrameNew():
            self._last_frame, self._connected = now, True
            captured = time.monotonic_ns()
            frame = Frame(self._pixels.copy(), PixelFormat.RGBA, captured, captured, self._seq)
            self._seq += 1
            return frame
        self._connected = bool(got) and now - self._last_frame < _LOST_S
        if not got or not self._name or not receiver.waitFrameSync(self._name, wait_ms):
            time.sleep(min(wait_ms, 2) / 1000)  # senders that do not signal are polled
        return None

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
        check_free(self._name, _names(spout), "Spout sender")
        sender = _with_context(spout.SpoutSender())
        sender.setSenderName(self._name)
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


def _names(spout: ModuleType) -> list[str]:
    """Names of all senders; called on a `GlThread`, as it needs a context."""
    receiver = _with_context(spout.SpoutReceiver())
    names = list(receiver.getSenderList())
    receiver.releaseReceiver()
    receiver.closeOpenGL()
    return names


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
    """Every sender on this machine."""
    spout = library()
    thread = GlThread("Spout list")
    try:
        return [SourceInfo(f"spout:{name}", name) for name in thread.do(lambda: _names(spout))]
    finally:
        thread.close()
