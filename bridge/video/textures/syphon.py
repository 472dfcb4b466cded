"""Syphon input and output (macOS): pictures shared on one graphics card, through syphon-python and Metal.

`syphon:NAME` takes a server's name or its program's name. This module has never run with the real library, only against
`tests.fakes.syphon`; so it is kept simple.
"""

from __future__ import annotations

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

_BGRA8UNORM = 80  # MTLPixelFormatBGRA8Unorm
_LOOK_EVERY_S = 1.0
_POLL_S = 0.002
_RUN_LOOP_S = 0.05


def library() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The Syphon binding and its helpers for arrays and textures.

    Raises:
        TransportError: it is not installed, or this is not macOS.
    """
    try:
        return tuple(importlib.import_module(name) for name in ("syphon", "syphon.utils.numpy", "syphon.utils.raw"))  # type: ignore[return-value]
    except ImportError as error:
        raise TransportError(
            f"Syphon cannot be loaded: {error}.", "On macOS: pip install syphon-python. Elsewhere use ndi:."
        ) from error


class SyphonSource(Source):
    """The newest picture of a Syphon server; of any server when the name is empty."""

    def __init__(self, name: str) -> None:
        super().__init__(f"syphon:{name}")
        self._name = name
        self._thread: GlThread | None = None
        self._client: Any = None
        self._title = name or "Any Syphon server"
        self._size = (0, 0)
        self._next_look = 0.0
        self._seq = 0

    def open(self) -> None:
        """Start to search for the server."""
        if self._thread is None:
            library()
            self._thread = GlThread("Syphon source")
            self._seq, self._next_look = 0, 0.0

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame; searches for the server while it is missing."""
        if self._thread is None:
            raise TransportError(f"{self.uri} is not open.")
        deadline = time.monotonic() + timeout_s
        while True:
            frame = self._thread.do(self._receive)
            left = deadline - time.monotonic()
            if frame is not None or left <= 0:
                return frame
            time.sleep(min(left, _POLL_S))

    def close(self) -> None:
        """Stop the client."""
        if self._thread is not None:
            try:
                self._thread.do(self._drop)
            finally:
                self._thread.close()
                self._thread = None

    @property
    def info(self) -> SourceInfo:
        """Name and size; Syphon has no frame rate."""
        return SourceInfo(self.uri, self._title, *self._size)

    @property
    def connected(self) -> bool:
        """Whether a server is connected."""
        return self._client is not None

    @property
    def problem(self) -> str:
        """What the source is waiting for."""
        return "" if self._client is not None or self._thread is None else f"Waiting for {self._title!r}."

    def _receive(self) -> Frame | None:
        syphon, arrays, _ = library()
        if self._client is not None and not self._client.is_valid:
            self._drop()
        if self._client is None:
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + _LOOK_EVERY_S
                self._look(syphon)
            return None
        if not self._client.has_new_frame:
            return None
        texture = self._client.new_frame_image
        if texture is None:
            return None
        captured = time.monotonic_ns()
        image = arrays.copy_mtl_texture_to_image(texture)
        kind = PixelFormat.BGRA if texture.pixelFormat() == _BGRA8UNORM else PixelFormat.RGBA
        pixels = np.ascontiguousarray(image[::-1])  # Syphon's pictures start with the bottom row
        self._size = (pixels.shape[1], pixels.shape[0])
        frame = Frame(pixels, kind, captured, captured, self._seq)
        self._seq += 1
        return frame

    def _look(self, syphon: ModuleType) -> None:
        wanted = self._name.casefold()
        for server in _servers(syphon):
            if not wanted or wanted in (server.name.casefold(), server.app_name.casefold(), _title(server).casefold()):
                self._client = syphon.SyphonMetalClient(server)
                self._title = _title(server)
                return

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.stop()


class SyphonSink(Sink):
    """A Syphon server. Syphon carries no metadata."""

    def __init__(self, name: str) -> None:
        super().__init__(f"syphon:{name}")
        self._name = name or DEFAULT_NAME
        self._thread: GlThread | None = None
        self._server: Any = None
        self._texture: Any = None
        self._converter = FourChannelConverter()

    def open(self) -> None:
        """Create the server."""
        if self._thread is None:
            syphon, _, _ = library()
            self._thread = GlThread("Syphon sink")
            try:
                self._server = self._thread.do(lambda: self._make(syphon))
            except TransportError:
                self._thread.close()
                self._thread = None
                raise

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Send one frame."""
        if self._thread is None:
            raise TransportError(f"{self.uri} is not open.")
        pixels, kind = self._converter.copy(frame)
        if kind is PixelFormat.BGRA:
            pixels = np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3]])
        self._thread.do(lambda: self._send(pixels))

    def close(self) -> None:
        """Stop the server."""
        if self._thread is not None:
            server, self._server, self._texture = self._server, None, None
            try:
                self._thread.do(server.stop)
            finally:
                self._thread.close()
                self._thread = None

    @property
    def receivers(self) -> int:
        """1 if there is any, 0 if there is none: Syphon does not count them."""
        return int(self._thread.do(lambda: self._server.has_clients)) if self._thread is not None else 0

    def _make(self, syphon: ModuleType) -> Any:
        check_free(self._name, {server.name for server in _servers(syphon)}.__contains__, "Syphon server")
        return syphon.SyphonMetalServer(self._name)

    def _send(self, pixels: np.ndarray) -> None:
        _, arrays, raw = library()
        height, width = pixels.shape[:2]
        if self._texture is None or (self._texture.width(), self._texture.height()) != (width, height):
            self._texture = raw.create_mtl_texture(self._server.device, width, height)
        arrays.copy_image_to_mtl_texture(pixels, self._texture)
        self._server.publish_frame_texture(self._texture, is_flipped=True)


def _servers(syphon: ModuleType) -> list[Any]:
    directory = syphon.SyphonServerDirectory()
    directory.run_loop_interval = _RUN_LOOP_S
    return list(directory.servers)


def _title(server: Any) -> str:
    return f"{server.app_name}: {server.name}" if server.name else str(server.app_name)


def guides(name: str) -> tuple[Guide, ...]:
    """How to receive an output in other programs."""
    return steps(name or DEFAULT_NAME, "Syphon", "Syphon Client")


def require() -> None:
    """Raise a `TransportError` if Syphon cannot be used on this machine."""
    library()


def source(name: str, options: Options) -> SyphonSource:
    """A server's picture by its name or its program's name."""
    return SyphonSource(name)


def sink(name: str, options: Options) -> SyphonSink:
    """A server by name."""
    return SyphonSink(name)


def sources(options: Options) -> list[SourceInfo]:
    """Every server on this machine."""
    syphon, _, _ = library()
    return [SourceInfo(f"syphon:{server.name or server.app_name}", _title(server)) for server in _servers(syphon)]
