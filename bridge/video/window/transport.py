"""Output to a window or a whole display of this machine, without another program.

The window has a process of its own (`process`), which gets the pictures through a frame ring. When that process dies or
hangs, or the display is unplugged, `send` says so, and the output is opened again when it can be.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from bridge.ipc.child_process import ChildProcess
from bridge.ipc.frame_ring import FrameRing
from bridge.video.base import Guide, Options, Sink
from bridge.video.names import check_window
from bridge.video.window.messages import FROM_WINDOW, Alive, Failed, FromWindow, Showing, Stop, ToWindow
from engine.errors import TransportError
from engine.frame import Frame

START_S = 15.0
"""How long a window may take to open, in s."""

HANG_S = 4.0
"""Silence after which a window's process counts as hung, in s. It says four times a second that it is alive."""

LOOK_S = 1.0
"""Longest time between two looks that counts as silence, in s. A longer one means that this process did not run."""

STOP_S = 2.0
"""How long it may take to end when it is asked to, in s."""

DEFAULT_SIZE = (1280, 720)
"""Size of the pictures until the first one comes, when none is given, in pixels."""


def _window_process(*args: Any) -> None:
    """Main function of the window's process; loads SDL only there."""
    from bridge.video.window.process import show

    show(*args)


class WindowProcess(ChildProcess[ToWindow, FromWindow]):
    """One running window. Belongs to the output's thread; messages come on another one.

    Args:
        display: the display to fill; 0 for an ordinary window.
        width, height: size of its pictures in pixels.

    Attributes:
        size: width and height of its pictures.
        where: the display or window in words, when it is open.
        shown: pictures that it has shown, as it said last.

    Raises:
        OSError, RuntimeError: there are no descriptors, memory, processes or threads left.
    """

    def __init__(self, display: int, width: int, height: int) -> None:
        self.size = (width, height)
        self.where = ""
        self.shown = 0
        self._failure: TransportError | None = None
        self._silent_s = 0.0
        self._looked_s = time.monotonic()
        self._told = threading.Event()  # whether it is open
        self._ring = FrameRing(width, height, depth=1, metadata_bytes=0)
        self._writer = self._ring.writer()
        try:
            with self._ring.reader() as reader:
                super().__init__(
                    "window",
                    _window_process,
                    lambda connection: (connection, reader, display),
                    FROM_WINDOW,
                    self._heard,
                    lambda topic, text: None,  # a garbled message: then it is silent, which `put` notices
                )
        except BaseException:
            self._free()
            raise

    def wait_until_open(self) -> None:
        """Wait until the window is open.

        Raises:
            TransportError: it could not be opened.
        """
        deadline = time.monotonic() + START_S
        while not self._told.wait(0.02):
            self._look()
            if time.monotonic() > deadline:
                raise TransportError(f"The window has not opened within {START_S:g} s.", "Check the graphics driver.")
        self._look()

    def put(self, frame: Frame) -> None:
        """Have a picture shown; never waits.

        Raises:
            TransportError: the window is gone, or its process hangs.
        """
        self._look()
        self._writer.put(Frame(frame.rgb(), seq=frame.seq))

    def end(self) -> None:
        """Close the window and end its process."""
        self._end(Stop(), STOP_S)
        self._free()

    def _look(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.channel.ended.is_set():
            raise TransportError("The window's process has ended.", "It is opened again.")
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._looked_s, LOOK_S)
        self._looked_s = now_s
        if self._silent_s > (HANG_S if self._told.is_set() else START_S):
            raise TransportError("The window does not answer.", "It is closed and opened again.")

    def _heard(self, message: FromWindow) -> None:
        self._silent_s = 0.0
        match message:
            case Showing(where):
                self.where = where
                self._told.set()
            case Alive(shown):
                self.shown = shown
            case Failed(text, remedy):
                self._failure = TransportError(text, remedy)
                self._told.set()

    def _free(self) -> None:
        self._writer.close()
        self._ring.close()


class WindowSink(Sink):
    """Shows frames in a window, or on a whole display.

    Args:
        name: number of the display to fill, 1 for the main one; empty for an ordinary window.
        options: the size of the first frames.
    """

    def __init__(self, name: str, options: Options) -> None:
        super().__init__(f"window:{name}")
        check_window(name)
        self._display = int(name or 0)
        self._first_size = (options.width, options.height) if options.width and options.height else DEFAULT_SIZE
        self._process: WindowProcess | None = None

    def open(self) -> None:
        """Open the window and wait until it is there."""
        check_desktop()
        if self._process is None:
            self._process = self._opened(*self._first_size)

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Have the frame shown; alpha is ignored. Frames of another size than the last one open another window.

        Raises:
            TransportError: the window is gone, or its process hangs.
        """
        if self._process is None:
            raise TransportError(f"{self.uri} is not open.")
        if self._process.size != (frame.width, frame.height):
            before, self._process = self._process, self._opened(frame.width, frame.height)
            before.end()  # not earlier, so that no desktop is seen
        self._process.put(frame)

    def close(self) -> None:
        """Close the window; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    @property
    def receivers(self) -> int:
        """One while the window is open."""
        return int(self._process is not None)

    @property
    def shown(self) -> int:
        """Pictures that the window has shown, as it said last; at most a quarter of a second old."""
        return self._process.shown if self._process is not None else 0

    @property
    def where(self) -> str:
        """The display or window in words; empty when it is closed."""
        return self._process.where if self._process is not None else ""

    def _opened(self, width: int, height: int) -> WindowProcess:
        process = WindowProcess(self._display, width, height)
        try:
            process.wait_until_open()
        except BaseException:
            process.end()
            raise
        return process


def sink(name: str, options: Options) -> WindowSink:
    """A window (no name) or a whole display (its number)."""
    return WindowSink(name, options)


def require() -> None:
    """Raise a `TransportError` if no window can be opened here."""
    from bridge.video.window.screen import library

    check_desktop()
    library()


def check_desktop() -> None:
    """Refuse a session without a desktop. SDL would open a window there that nobody can see.

    Raises:
        TransportError: there is none.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise TransportError("There is no desktop that could show a window.", "Start Tidecast from a desktop.")


def guides(name: str) -> tuple[Guide, ...]:
    """How to use the window."""
    if not name:
        steps: tuple[str, ...] = ("The picture is in the window Tidecast.", "F11 or a double click: full screen.")
    else:
        steps = (
            f"The picture fills display {name} of this machine: no other program is needed.",
            "F11 or a double click makes an ordinary window of it, and back.",
            "If the display is unplugged, the window comes back with it. Closing the window does nothing: the show "
            "decides that.",
        )
    return (Guide("A display", steps, (f"--output window:{name}",)),)
