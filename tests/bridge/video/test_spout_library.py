"""What SpoutGL does, asked of the stand-in everywhere, and of the real library where it is: on Windows, and under Wine.

Each of these was seen under Wine 10 with SpoutGL 0.1.1 first; the stand-in then learnt it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import mmap
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bridge.video.textures.gl_thread import GlThread
from tests.fakes import spoutgl
from tests.support.video_peers import unique

RGBA = 0x1908
ON_WINDOWS = sys.platform == "win32"
UNDER_WINE = ON_WINDOWS and hasattr(ctypes.windll.ntdll, "wine_get_version")  # type: ignore[attr-defined,unused-ignore]

KILLED = """
import sys, numpy, SpoutGL
sender = SpoutGL.SpoutSender()
sender.createOpenGL()
sender.setSenderName(sys.argv[1])
sender.sendImage(numpy.zeros((48, 64, 4), numpy.uint8), 64, 48, 0x1908, False, 0)
print("sending", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["stand-in", *(["real"] if ON_WINDOWS else [])])
def spout(request: pytest.FixtureRequest) -> ModuleType:
    return spoutgl if request.param == "stand-in" else importlib.import_module("SpoutGL")


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 4), (200, 100, 50, 255), np.uint8)


@contextlib.contextmanager
def made(kind: Callable[[], Any]) -> Iterator[tuple[GlThread, Any]]:
    """A sender or receiver with its context, on a thread of its own."""
    thread = GlThread("Spout test")
    made = thread.do(kind)
    assert thread.do(made.createOpenGL)
    try:
        yield thread, made
    finally:
        thread.do(made.releaseSender if hasattr(made, "releaseSender") else made.releaseReceiver)
        thread.do(made.closeOpenGL)
        thread.close()


@contextlib.contextmanager
def showing(spout: ModuleType, name: str) -> Iterator[Callable[[np.ndarray], bool]]:
    """A sender that has sent one picture; yields what sends another."""
    with made(spout.SpoutSender) as (thread, sender):
        thread.do(lambda: sender.setSenderName(name))

        def send(pixels: np.ndarray) -> bool:
            height, width = pixels.shape[:2]
            return bool(thread.do(lambda: sender.sendImage(pixels, width, height, RGBA, False, 0)))

        assert send(picture())
        yield send


def size(spout: ModuleType, name: str) -> tuple[int, int] | None:
    found = spout.SpoutReceiver().getSenderInfo(name)
    return None if found is None else (found.width, found.height)


def test_senders_are_listed_without_a_context_from_their_first_picture_on(spout: ModuleType) -> None:
    name = unique("Théâtre 日本")
    with made(spout.SpoutSender) as (thread, sender):
        thread.do(lambda: sender.setSenderName(name))
        assert name not in spout.SpoutReceiver().getSenderList() and size(spout, name) is None
        assert thread.do(lambda: sender.sendImage(picture(), 64, 48, RGBA, False, 0))
        assert name in spout.SpoutReceiver().getSenderList() and size(spout, name) == (64, 48)
    assert name not in spout.SpoutReceiver().getSenderList() and size(spout, name) is None


def test_the_list_follows_the_size(spout: ModuleType) -> None:
    name = unique("resized")
    with showing(spout, name) as send:
        assert send(picture(80, 60))
        assert size(spout, name) == (80, 60)


def test_the_newest_sender_is_the_active_one(spout: ModuleType) -> None:
    names = unique("older"), unique("newer")
    with showing(spout, names[0]) as send, showing(spout, names[1]):
        assert send(picture())
        assert spout.SpoutReceiver().getActiveSender() == names[1]


def test_a_name_that_is_not_in_utf_8_makes_the_list_unreadable(spout: ModuleType) -> None:
    with sender_called(spout, b"Caf\xe9"), pytest.raises(UnicodeDecodeError):
        spout.SpoutReceiver().getSenderList()
    assert "Caf\xe9" not in spout.SpoutReceiver().getSenderList()


@contextlib.contextmanager
def sender_called(spout: ModuleType, name: bytes) -> Iterator[None]:
    """A sender of another program: Spout's list of names, and the memory that says of what size it is."""
    if spout is spoutgl:
        spoutgl.foreign_names.append(name)
        yield
        spoutgl.foreign_names.clear()
        return
    with showing(spout, unique("beside")):  # it makes the list
        tag: dict[str, Any] = {"tagname": "SpoutSenderNames"}
        names = mmap.mmap(-1, 256 * 64, **tag)
        tag["tagname"] = name.decode("cp1252")
        info = mmap.mmap(-1, 280, **tag)
        info[:8] = (64).to_bytes(4, "little") + (48).to_bytes(4, "little")
        free = next(at for at in range(0, len(names), 256) if not names[at])
        names[free : free + 256] = name.ljust(256, b"\0")
        yield
        names[free : free + 256] = bytes(256)
        names.close(), info.close()


def test_frames_are_not_counted_and_all_of_them_count_as_new(spout: ModuleType) -> None:
    with made(spout.SpoutReceiver) as (thread, receiver):
        thread.do(lambda: receiver.receiveImage(None, RGBA, False, 0))
        if not UNDER_WINE and spout is not spoutgl and thread.do(receiver.isFrameCountEnabled):
            pytest.skip("counting was switched on at this machine")
        assert not thread.do(receiver.isFrameCountEnabled) and thread.do(receiver.isFrameNew)


def test_how_pictures_are_shared_is_known_after_the_first_look(spout: ModuleType, monkeypatch) -> None:
    monkeypatch.setattr(spoutgl, "through_memory", True)
    with made(spout.SpoutReceiver) as (thread, receiver):
        assert not thread.do(receiver.getCPUshare) and thread.do(receiver.isGLDXReady)
        thread.do(lambda: receiver.receiveImage(None, RGBA, False, 0))
        if spout is spoutgl or UNDER_WINE:
            assert thread.do(receiver.getCPUshare) and not thread.do(receiver.isGLDXReady)


def test_a_wait_for_a_sender_that_is_not_connected_returns_at_once(spout: ModuleType) -> None:
    with made(spout.SpoutReceiver) as (thread, receiver):
        assert thread.do(lambda: receiver.waitFrameSync(unique("nobody"), 60_000)) is False


@pytest.mark.skipif(ON_WINDOWS and not UNDER_WINE, reason="two processes share pictures here")
def test_a_sender_whose_picture_cannot_be_opened_seems_to_be_connected(spout: ModuleType, monkeypatch) -> None:
    name = unique("other adapter")
    monkeypatch.setattr(spoutgl, "other_adapter", {name})
    with showing(spout, name), made(spout.SpoutReceiver) as (thread, receiver):
        thread.do(lambda: receiver.setReceiverName(name))
        untouched = np.full((1, 1, 4), 77, np.uint8)
        assert not thread.do(lambda: receiver.receiveImage(None, RGBA, False, 0))
        assert thread.do(lambda: receiver.receiveImage(untouched, RGBA, False, 0)) and (untouched == 77).all()
        assert not thread.do(receiver.isUpdated) and thread.do(receiver.isFrameNew)
        assert thread.do(receiver.getSenderWidth) == thread.do(receiver.getSenderHeight) == 0


@pytest.mark.skipif(not ON_WINDOWS, reason="the stand-in has no processes")
def test_the_name_of_a_killed_sender_is_in_the_way_until_the_senders_are_listed() -> None:
    spout, name = importlib.import_module("SpoutGL"), unique("killed")
    with showing(spout, unique("beside")):  # it keeps the list
        killed = subprocess.Popen(
            [sys.executable, "-c", KILLED, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert killed.stdout is not None and "sending" in killed.stdout.readline()
        assert size(spout, name) == (64, 48)
        killed.kill(), killed.wait()
        assert size(spout, name) is None
        with showing(spout, name):
            assert size(spout, name) is None and size(spout, f"{name}_1") == (64, 48)
        assert name not in spout.SpoutReceiver().getSenderList()
        with showing(spout, name):
            assert size(spout, name) == (64, 48)
