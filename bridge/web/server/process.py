"""The web process: everything of the page that costs time, away from the picture.

`serve` is its main function, started by `bridge.web.launcher.WebProcess`. It reads what the bridge process says from
a pipe, serves the pages with uvicorn on a thread, and sends back what the pages ask for. It ends when the pipe does,
so that it never outlives the bridge. Knows no video transport and no engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from bridge.control.oscquery.http import oscquery_routes
from bridge.control.table import ControlTable
from bridge.ipc.channel import Channel, MessageError
from bridge.ipc.frame_ring import RingReader
from bridge.service import Service
from bridge.web.messages import TO_WEB, FindInputs, FromWeb, News, Say, Serving, Settings, Stop, ToWeb, Watch
from bridge.web.server.application import MAX_MESSAGE, application
from bridge.web.server.gallery import Gallery
from bridge.web.server.guard import Guard
from bridge.web.server.hub import Hub

log = logging.getLogger(__name__)

NICENESS = 5
"""The stage goes before its pages when the processor is short (POSIX)."""

MAX_UNSENT = 512
"""Messages of pages that wait for the bridge process, when that is busy; beyond it the oldest go."""


class Uplink:
    """Sends to the bridge process from a thread of its own; callers never wait.

    Of several values for one control that wait, only the newest is sent; commands keep their place among them.
    """

    def __init__(self, channel: Channel[FromWeb, ToWeb], table: ControlTable) -> None:
        self._channel = channel
        self._targets = table.targets
        self._unsent: OrderedDict[Hashable, FromWeb] = OrderedDict()
        self._turn = 0
        self._change = threading.Condition()
        Service("uplink", self._run).start()

    def say(self, address: str, args: Sequence[Any], client: str) -> None:
        """A page's OSC-like message."""
        target = self._targets.get(address)
        with self._change:
            if target is not None and target.control is not None:
                key: Hashable = (self._turn, address)
            else:
                self._turn += 1
                key = self._turn
            self._put(key, Say(address, tuple(args), client))

    def watch(self, kinds: frozenset[str]) -> None:
        """Which pictures are watched."""
        with self._change:
            self._put(Watch, Watch(kinds))

    def find_inputs(self) -> None:
        """Ask for the list of sources."""
        with self._change:
            self._put(FindInputs, FindInputs())

    def serving(self) -> None:
        """Pages can be opened."""
        with self._change:
            self._put(Serving, Serving())

    def _put(self, key: Hashable, message: FromWeb) -> None:
        self._unsent.pop(key, None)
        self._unsent[key] = message
        while len(self._unsent) > MAX_UNSENT:
            self._unsent.popitem(last=False)
        self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._unsent)
                batch, self._unsent = list(self._unsent.values()), OrderedDict()
            try:
                for message in batch:
                    self._channel.send(message)
            except OSError:  # the bridge process is gone; the reading side of the pipe ends this process
                return


class _Server(threading.Thread):
    """uvicorn on a thread of its own, so that signals stay with the main thread.

    No `Service`: uvicorn ends by its own flag, and one of its servers serves only once.
    """

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        super().__init__(name="web", daemon=True)
        config = uvicorn.Config(
            app,
            http="h11",  # bounds the head of a request, as httptools does not
            h11_max_incomplete_event_size=MAX_MESSAGE,
            ws_max_size=MAX_MESSAGE,
            ws_max_queue=16,
            ws_ping_interval=10.0,
            ws_ping_timeout=20.0,
            ws_per_message_deflate=False,
            limit_concurrency=256,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._listening = listening
        self.loop = asyncio.new_event_loop()

    def run(self) -> None:
        """Serve until `stop`."""
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._server.serve(sockets=[self._listening]))

    def stop(self) -> None:
        """Close every connection and end the thread; waits for at most three seconds."""
        self._server.should_exit = True
        self.join(3.0)


def serve(pipe: Connection, listening: socket.socket, rings: Mapping[str, RingReader], settings: Settings) -> None:
    """Main function of the web process; returns when the bridge process says so or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C goes to the whole group; the bridge ends us in order
    logging.basicConfig(level=logging.WARNING, format="web: %(name)s: %(message)s")
    channel: Channel[FromWeb, ToWeb] = Channel(pipe, TO_WEB)
    uplink = Uplink(channel, settings.table)
    hub = Hub(settings.table, settings.about, uplink.say, uplink.find_inputs)
    gallery = Gallery(rings, uplink.watch, settings.widest)
    tree = oscquery_routes(hub.table, lambda: hub.controls, hub.telemetry, settings.osc, uplink.say)
    server = _Server(Guard(application(hub, gallery, tree), settings.host, settings.token), listening)
    if hasattr(os, "nice"):
        server.loop.call_soon(os.nice, NICENESS)  # this thread and those that it starts, on Linux
    server.loop.call_soon(gallery.start, server.loop)
    server.loop.call_soon(uplink.serving)
    server.start()
    listen_to_bridge(channel, lambda news: server.loop.call_soon_threadsafe(hub.absorb, news))
    gallery.stop()
    server.stop()


def listen_to_bridge(channel: Channel[FromWeb, ToWeb], absorb: Callable[[News], object]) -> None:
    """Hand on what the bridge process tells, until it says stop or is gone; garbled messages are logged."""
    while True:
        try:
            message = channel.receive()
        except (EOFError, OSError):
            log.info("the bridge process is gone")
            return
        except MessageError as error:
            log.error("%s", error)
            continue
        if isinstance(message, Stop):
            return
        absorb(message)
