"""A stand-in for SpoutGL that runs anywhere and raises on every misuse that the real one punishes or hides.

Put it in place with `sys.modules["SpoutGL"] = tests.fakes.spoutgl`. Senders and receivers of one process see
each other. It has the surface of SpoutGL 0.1.1 that Tidecast uses, and is stricter: a context belongs to the thread
that made it, only lists work before it is made or after it is closed, pixels must be whole contiguous bytes.

`tests/bridge/video/test_spout_library.py` holds it and the real one, under Wine, to the same behaviour.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

GL_RGBA = 0x1908
GL_BGRA_EXT = 0x80E1


class Misuse(AssertionError):
    """Something was called that the real library would crash on, or silently do wrong."""


@dataclass
class _Shared:
    """What one sender shows."""

    pixels: np.ndarray | None = None
    number: int = 0
    signals: bool = False


_senders: dict[str, _Shared] = {}
"""Senders that have sent a picture, the newest last."""

_news = threading.Condition()
contexts = 0
"""Contexts that are open now; a test looks whether all were closed."""

through_memory = False
"""Whether the machine cannot share textures; Spout finds out when it first sends or receives."""

counts_frames = False
"""Whether frames are counted, as the registry says: off, where Spout's own program SpoutSettings never ran."""

other_adapter: set[str] = set()
"""Senders whose pictures cannot be opened, because they run on another graphics adapter."""

foreign_names: list[bytes] = []
"""Names of senders that are not in UTF-8."""

dead_names: set[str] = set()
"""Senders whose process was killed. They stay in the way of their names until the senders are listed."""

LONGEST_NAME = 244
"""Longest name in bytes: at a longer one, the real library ends the process, as its buffers have 256."""


@dataclass(frozen=True)
class SenderInfo:
    """Size of a sender; its name is always empty."""

    width: int
    height: int
    name: str = ""


class _WithContext:
    def __init__(self) -> None:
        self._thread: int | None = None
        self._released = False
        self._opened = False

    def getSenderInfo(self, name: str) -> SenderInfo | None:
        with _news:
            shared = _senders.get(name)
            if shared is None or shared.pixels is None:
                return None
            height, width = shared.pixels.shape[:2]
            return SenderInfo(width, height)

    def getActiveSender(self) -> str | None:
        with _news:
            return next(reversed(_senders), None)

    def getCPUshare(self) -> bool:
        self._check()
        return self._opened and through_memory

    def isGLDXReady(self) -> bool:
        self._check()
        return not (self._opened and through_memory)

    def createOpenGL(self) -> bool:
        global contexts
        if self._thread is not None:
            raise Misuse("the context is made twice")
        self._thread = threading.get_ident()
        contexts += 1
        return True

    def closeOpenGL(self) -> bool:
        global contexts
        self._check()
        if not self._released:
            raise Misuse("the context is closed before the sender or receiver is released")
        self._thread = None
        contexts -= 1
        return True

    def _check(self) -> None:
        if self._thread is None:
            raise Misuse("there is no OpenGL context")
        if self._thread != threading.get_ident():
            raise Misuse("the OpenGL context belongs to another thread")

    def _check_live(self) -> None:
        self._check()
        if self._released:
            raise Misuse("used after it was released")


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or "\0" in name:
        raise Misuse("a name is a text without zero characters")
    if len(name.encode()) > LONGEST_NAME:
        raise Misuse("the real library ends the process at so long a name")


def _check_picture(pixels: Any, width: int, height: int, form: int, invert: bool, fbo: int) -> np.ndarray:
    if form not in (GL_RGBA, GL_BGRA_EXT):
        raise Misuse(f"unknown GL format {form:#x}")
    if type(invert) is not bool or type(fbo) is not int:
        raise Misuse("invert must be a bool and the host framebuffer an int")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
        raise Misuse("pixels must be a contiguous array of bytes")
    if pixels.shape != (height, width, 4):
        raise Misuse(f"pixels of shape {pixels.shape} are not {width}x{height} with 4 channels")
    return pixels


class SpoutSender(_WithContext):
    """Shows pictures to every `SpoutReceiver` of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._shared: _Shared | None = None

    def setSenderName(self, name: str) -> None:
        self._check_live()
        _check_name(name)
        if name in _senders or name in dead_names:
            raise Misuse(f"the real library would quietly rename a second {name!r}")
        self._name = name

    def sendImage(self, pixels: Any, width: int, height: int, form: int, invert: bool, fbo: int) -> bool:
        self._check_live()
        if not self._name:
            raise Misuse("the sender has no name yet")
        picture = _check_picture(pixels, width, height, form, invert, fbo)
        rgba = picture if form == GL_RGBA else picture[:, :, [2, 1, 0, 3]]
        self._opened = True
        with _news:
            if self._shared is None:
                if self._name in _senders:
                    raise Misuse(f"the real library would show two senders under the one name {self._name!r}")
                self._shared = _senders[self._name] = _Shared()
            self._shared.pixels = np.ascontiguousarray(rgba[::-1] if invert else rgba).copy()
            self._shared.number += 1
        return True

    def setFrameSync(self, name: str) -> None:
        self._check_live()
        if name != self._name:
            raise Misuse(f"a signal for {name!r} from the sender {self._name!r}")
        with _news:
            if self._shared is not None:
                self._shared.signals = True
            _news.notify_all()

    def releaseSender(self) -> None:
        self._check_live()
        self._released = True
        with _news:
            if self._shared is not None:
                del _senders[self._name]


class SpoutReceiver(_WithContext):
    """Sees the pictures of every `SpoutSender` of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._size: tuple[int, int] | None = None
        self._number = 0
        self._updated = self._new = False

    def setReceiverName(self, name: str) -> None:
        self._check_live()
        _check_name(name)
        self._name = name

    def getSenderList(self) -> list[str]:
        with _news:
            dead_names.clear()
            return list(_senders) + [name.decode() for name in foreign_names]

    def receiveImage(self, pixels: Any, form: int, invert: bool, fbo: int) -> bool:
        self._check_live()
        self._opened = True
        with _news:
            name = self._name or next(reversed(_senders), "")
            shared = _senders.get(name)
            self._new = not counts_frames
            if shared is None or shared.pixels is None:
                self._size = None
                return False
            if name in other_adapter:  # says yes without touching the array, unless there is none
                self._size = None
                return pixels is not None
            height, width = shared.pixels.shape[:2]
            if self._size != (width, height):
                self._size, self._updated = (width, height), True
                return True
            if self._updated:
                raise Misuse("isUpdated was not asked after a change of size")
            target = _check_picture(pixels, width, height, form, invert, fbo)
            self._new = not counts_frames or shared.number != self._number
            self._number = shared.number
            target[:] = shared.pixels[::-1] if invert else shared.pixels
            return True

    def isUpdated(self) -> bool:
        self._check_live()
        updated, self._updated = self._updated, False
        return updated

    def isFrameNew(self) -> bool:
        self._check_live()
        return self._new

    def isFrameCountEnabled(self) -> bool:
        self._check_live()
        return counts_frames

    def isConnected(self) -> bool:
        self._check_live()
        return self._size is not None

    def getSenderWidth(self) -> int:
        self._check_live()
        return self._size[0] if self._size else 0

    def getSenderHeight(self) -> int:
        self._check_live()
        return self._size[1] if self._size else 0

    def getSenderName(self) -> int:
        raise Misuse("getSenderName is bound to the width in the real library")

    def waitFrameSync(self, name: str, timeout_ms: int) -> bool:
        self._check_live()
        if type(timeout_ms) is not int:
            raise Misuse("the timeout is in whole milliseconds")
        _check_name(name)
        with _news:
            if self._size is None or name not in _senders:
                return False
            if not _senders[name].signals:
                return True
            number = _senders[name].number
            if number != self._number:
                return True
            until = time.monotonic() + timeout_ms / 1000
            while name in _senders and _senders[name].number == number:
                if not _news.wait(max(0.0, until - time.monotonic())):
                    return False
            return name in _senders

    def releaseReceiver(self) -> None:
        self._check_live()
        self._released = True
