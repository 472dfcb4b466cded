"""A stand-in for syphon-python that runs anywhere and raises on every misuse.

Put it in place with `install(sys.modules)`. Servers and clients of one process see each other. It has the surface of
syphon-python 0.2 that Tidecast uses, and is stricter: a server, client or directory belongs to the thread that made
it, nothing may be used after it was stopped, textures must have the picture's size.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any

import numpy as np

RGBA8UNORM, BGRA8UNORM = 70, 80


class Misuse(AssertionError):
    """Something was called that the real library would crash on, or silently do wrong."""


class _OfOneThread:
    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._stopped = False

    def _check(self) -> None:
        if self._stopped:
            raise Misuse("used after it was stopped")
        if self._thread != threading.get_ident():
            raise Misuse("used in another thread than the one that made it")


class Texture:
    """A Metal texture: four bytes per pixel."""

    def __init__(self, width: int, height: int, pixel_format: int) -> None:
        self.data = np.zeros((height, width, 4), np.uint8)
        self._format = pixel_format

    def width(self) -> int:
        return int(self.data.shape[1])

    def height(self) -> int:
        return int(self.data.shape[0])

    def pixelFormat(self) -> int:
        return self._format


class SyphonServerDescription:
    """What the directory lists."""

    def __init__(self, name: str) -> None:
        self.name, self.app_name = name, "python"


_running: dict[str, SyphonMetalServer] = {}


class SyphonServerDirectory:
    """Lists the servers of this process."""

    run_loop_interval = 1.0

    @property
    def servers(self) -> list[SyphonServerDescription]:
        return [SyphonServerDescription(name) for name in _running]


class SyphonMetalServer(_OfOneThread):
    """Shows textures to every client of this process."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name in _running:
            raise Misuse(f"a second server called {name!r} in this test")
        self.name, self.device = name, object()
        self.surface: np.ndarray | None = None
        self.number = self.clients = 0
        _running[name] = self

    def publish_frame_texture(self, texture: Texture, is_flipped: bool = False) -> None:
        self._check()
        if not isinstance(texture, Texture):
            raise Misuse("only a texture can be published")
        rgba = texture.data if texture.pixelFormat() == RGBA8UNORM else texture.data[:, :, [2, 1, 0, 3]]
        self.surface = (rgba[::-1] if is_flipped else rgba).copy()
        self.number += 1

    @property
    def has_clients(self) -> bool:
        self._check()
        return self.clients > 0

    def stop(self) -> None:
        self._check()
        self._stopped = True
        _running.pop(self.name, None)


class SyphonMetalClient(_OfOneThread):
    """Sees the pictures of one server."""

    def __init__(self, description: SyphonServerDescription) -> None:
        super().__init__()
        self._server = _running[description.name]
        self._server.clients += 1
        self._seen = 0

    @property
    def is_valid(self) -> bool:
        self._check()
        return not self._server._stopped

    @property
    def has_new_frame(self) -> bool:
        self._check()
        return self._server.number != self._seen

    @property
    def new_frame_image(self) -> Texture | None:
        self._check()
        self._seen = self._server.number
        if self._server.surface is None:
            return None
        height, width = self._server.surface.shape[:2]
        texture = Texture(width, height, BGRA8UNORM)
        texture.data[:] = self._server.surface[:, :, [2, 1, 0, 3]]
        return texture

    def stop(self) -> None:
        self._check()
        self._stopped = True
        self._server.clients -= 1


def create_mtl_texture(device: Any, width: int, height: int, pixel_format: int = RGBA8UNORM) -> Texture:
    """As `syphon.utils.raw.create_mtl_texture`."""
    return Texture(width, height, pixel_format)


def copy_image_to_mtl_texture(image: np.ndarray, texture: Texture) -> None:
    """As `syphon.utils.numpy.copy_image_to_mtl_texture`."""
    if image.dtype != np.uint8 or image.shape != texture.data.shape or not image.flags.c_contiguous:
        raise Misuse(f"an image of {image.dtype} {image.shape} for a texture of {texture.data.shape}")
    texture.data[:] = image


def copy_mtl_texture_to_image(texture: Texture) -> np.ndarray:
    """As `syphon.utils.numpy.copy_mtl_texture_to_image`."""
    return texture.data.copy()


def install(modules: MutableMapping[str, ModuleType]) -> None:
    """Put this module in the place of syphon-python and its helpers."""
    here = sys.modules[__name__]
    for name in ("syphon", "syphon.utils", "syphon.utils.numpy", "syphon.utils.raw"):
        modules[name] = here
