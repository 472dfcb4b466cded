"""What breaks around the controls: the disk, the clock, ports, the page and those who listen."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from unittest import mock

import psutil

from bridge.app import App
from bridge.control.osc.packet import build
from bridge.drills.faults.drill import Drill, wait_for
from engine.control import PREFIX
from engine.errors import EngineError, PortInUseError

HOUR_S = 3600
UNREAD_S = 3.0


def disk_full(drill: Drill) -> None:
    """A snapshot cannot be written."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch("bridge.control.files.os.fsync", side_effect=full):
        drill.app.store.handle(f"{PREFIX}/snapshot/save", [1])
        wait_for(lambda: drill.reported("snapshot"), "a full disk was not reported")


def clock_jumps(drill: Drill) -> None:
    """The clock is set by an hour, and back."""
    clock, clock_ns = time.time, time.time_ns
    for jump_s in (HOUR_S, -HOUR_S):
        with (
            mock.patch("time.time", lambda jump_s=jump_s: clock() + jump_s),
            mock.patch("time.time_ns", lambda jump_s=jump_s: clock_ns() + jump_s * 1_000_000_000),
        ):
            time.sleep(drill.settle_s)


def port_taken(drill: Drill) -> None:
    """A second bridge at the same port."""
    taken = drill.config.osc.model_copy(update={"port": drill.osc[1]})
    try:
        with App(drill.config.model_copy(update={"osc": taken})):
            raise EngineError("A second bridge started on a port that is in use.")
    except PortInUseError as error:
        drill.errors.append(str(error))


def page_frozen(drill: Drill) -> None:
    """SIGSTOP to the web process: it is replaced, at the same address."""
    web = drill.app.web
    assert web is not None
    before = web.pid
    psutil.Process(before).suspend()
    wait_for(lambda: web.pid not in (0, before), "the frozen web process was not replaced")
    wait_for(lambda: _answers(web.port), "the page did not come back")


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as client:
        client.settimeout(1.0)
        client.sendall(b"GET /api/table HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return client.recv(12) == b"HTTP/1.1 200"
    return False


def subscriber_never_reads(drill: Drill) -> None:
    """Pages and an OSC client that ask for everything and read nothing, while every control moves."""
    assert drill.app.web is not None
    with contextlib.ExitStack() as stack:
        for path in ("/api/socket", "/api/preview", "/"):
            page = stack.enter_context(socket.create_connection(("127.0.0.1", drill.app.web.port), 5.0))
            page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            page.sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            if path == "/api/preview":
                page.sendall(_masked(b'{"watch": ["output", "input"]}'))
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.bind(("127.0.0.1", 0))
        client.sendto(build(f"{PREFIX}/subscribe", (client.getsockname()[1],)), drill.osc)
        end = time.monotonic() + UNREAD_S
        motion = drill.app.store.snapshot.value("motion")
        while (left := end - time.monotonic()) > 0:
            drill.app.store.set("motion", left / UNREAD_S)
            client.sendto(build(f"{PREFIX}/resend"), drill.osc)
            time.sleep(0.002)
        drill.app.store.set("motion", motion)


def _masked(text: bytes) -> bytes:
    """A WebSocket text message, as a browser frames it, with a mask of zeros."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text
