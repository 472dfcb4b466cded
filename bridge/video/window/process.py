"""The process of one window: takes the newest picture from a frame ring and shows it, at the display's own rate.

It is a process of its own because a display driver may hang or crash, because macOS shows windows on the main thread
only, and because waiting for the display must not hold the bridge. It ends when the pipe closes, so it never outlives
the bridge.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from multiprocessing.connection import Connection

from bridge.ipc.channel import Channel, MessageError
from bridge.ipc.frame_ring import RingReader
from bridge.ipc.group_signals import leave_to_parent
from bridge.printable import PrintableFormatter
from bridge.video.window.messages import TO_WINDOW, Alive, Failed, FromWindow, Showing, ToWindow
from bridge.video.window.screen import Event, Screen
from engine.errors import TransportError

WAIT_S = 0.05
"""Longest wait for a picture before the window's events are looked at, in s."""

LOST_S = 1.0
"""Without a picture for this long the window is black, in s: the bridge sends one at every tick, whatever happens."""

ALIVE_PERIOD_S = 0.25
"""Interval at which the bridge process is told that this one is alive, in s."""

LOOK_PERIOD_S = 0.5
"""Interval at which the display is looked for, in s."""


def show(pipe: Connection, pictures: RingReader, display: int) -> None:
    """Main function of the process; returns when the bridge process sends `Stop` or is gone, or the display is lost.

    Args:
        pipe: this process's end of the pipe.
        pictures: the ring; its size is the pictures'.
        display: the display to fill, 1 for the main one; 0 for an ordinary window.
    """
    leave_to_parent(lambda: os._exit(1))
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("window: %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    channel: Channel[FromWindow, ToWindow] = Channel(pipe, TO_WINDOW)
    stopping = threading.Event()
    threading.Thread(target=_listen, args=(channel, stopping), name="listen", daemon=True).start()
    try:
        screen = Screen(display, *pictures.size)
        try:
            channel.send(Showing(screen.where))
            _loop(screen, channel, pictures, stopping)
        finally:
            screen.close()
    except TransportError as error:
        with contextlib.suppress(OSError):  # the bridge process may be gone, too
            channel.send(Failed(error.message, error.remedy))
    except (EOFError, OSError):  # the bridge process is gone
        return


def _loop(
    screen: Screen, channel: Channel[FromWindow, ToWindow], pictures: RingReader, stopping: threading.Event
) -> None:
    """Show pictures until `stopping` is set.

    Raises:
        TransportError: the display is gone, or cannot be painted.
        EOFError, OSError: the bridge process is gone.
    """
    shown, last_s = 0, time.monotonic()
    next_alive_s = next_look_s = 0.0
    while not stopping.is_set():
        frame = pictures.get(WAIT_S, newest=True)
        events = screen.events()
        if Event.TOGGLED in events:
            screen.toggle()
        now_s = time.monotonic()
        if frame is not None:
            screen.show(frame.pixels)
            shown, last_s = shown + 1, now_s
        elif now_s - last_s > LOST_S:
            screen.show(None)
        elif events:
            screen.again()
        if now_s >= next_look_s:
            next_look_s = now_s + LOOK_PERIOD_S
            screen.look()
        if now_s >= next_alive_s:
            next_alive_s = now_s + ALIVE_PERIOD_S
            channel.send(Alive(shown))


def _listen(channel: Channel[FromWindow, ToWindow], stopping: threading.Event) -> None:
    """Thread: wait for the end, by a message or because the bridge process is gone."""
    while not stopping.is_set():
        try:
            channel.receive()  # `Stop` is the only message
            stopping.set()
        except MessageError as error:
            logging.getLogger(__name__).error("%s", error)
        except (EOFError, OSError):
            stopping.set()
