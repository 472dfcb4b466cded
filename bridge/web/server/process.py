"""The web process: does the page's work outside the bridge process, so that no page can delay a frame.

`serve` is its main function, started by `bridge.web.launcher.WebProcess`. It reads the bridge process's messages from a
pipe, serves the pages with uvicorn on a thread, and sends back what the pages ask for. It ends when the pipe closes, so
it never outlives the bridge.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, assert_never

from bridge.control.origin import Origin
from bridge.control.osc.address_pattern import is_pattern
from bridge.control.osc.packet import Message
from bridge.control.oscquery.http import oscquery_routes
from bridge.control.store import MAX_DATAGRAM_COST, MIN_PATTERN_COST
from bridge.control.table import ControlTable
from bridge.http_server import HttpServer
from bridge.ipc.channel import Channel, MessageError
from bridge.ipc.frame_ring import RingReader
from bridge.ipc.group_signals import leave_to_parent
from bridge.printable import PrintableFormatter
from bridge.service import Service
from bridge.web.messages import (
    TO_WEB,
    Alive,
    Batch,
    FindInputs,
    FromWeb,
    News,
    OpenShow,
    SaveShow,
    Say,
    Serving,
    Settings,
    ShowAnswer,
    Stop,
    ToWeb,
    Watch,
)
from bridge.web.server.application import application
from bridge.web.server.gallery import Gallery
from bridge.web.server.guard import Guard
from bridge.web.server.hub import Hub
from bridge.web.server.json_requests import MAX_MESSAGE
from bridge.web.server.show_api import ShowApi

log = logging.getLogger(__name__)

NICENESS = 5
"""Lower priority than the bridge process, whose frames matter more when the processor is busy (POSIX)."""

ALIVE_PERIOD_S = 0.5
"""Interval at which the bridge process is told that this one is alive."""

MAX_UNSENT = MAX_DATAGRAM_COST
"""Most messages of one client that are queued for a busy bridge process; beyond that its oldest are dropped. One OSC
bundle fits."""

UPLINK_RATE = 2000.0
"""Most messages per second that the bridge process gets from all pages together: it has pictures to send. An address
pattern counts as `MIN_PATTERN_COST` messages."""


class Uplink:
    """Sends to the bridge process from a thread of its own; callers never block.

    Of several values queued for one control, only the newest is sent, but never across a command: commands keep their
    place in the order. A client that says too much loses its own oldest messages, nobody else's.
    """

    def __init__(self, channel: Channel[FromWeb, ToWeb], table: ControlTable) -> None:
        self._channel = channel
        self._targets = table.targets
        self._unsent: OrderedDict[Hashable, FromWeb] = OrderedDict()
        self._said: Counter[str] = Counter()  # how many of them each client has said
        self._commands = 0  # values are merged only between two commands
        self._change = threading.Condition()
        Service("uplink", self._run).start()

    def say(self, address: str, args: Sequence[Any], origin: Origin) -> None:
        """A page's OSC-like message."""
        target = self._targets.get(address)
        with self._change:
            if target is not None and target.control is not None:
                key: Hashable = (self._commands, address, origin.trust)  # a value that may be refused replaces no other
            else:
                self._commands += 1
                key = self._commands
            self._put(key, Say(address, tuple(args), origin))

    def say_all(self, messages: Iterable[Message], origin: Origin) -> None:
        """The OSC messages of one packet."""
        for message in messages:
            self.say(message.address, message.args, origin)

    def watch(self, kinds: frozenset[str]) -> None:
        """Which pictures are watched."""
        with self._change:
            self._put(Watch, Watch(kinds))

    def find_inputs(self) -> None:
        """Ask for the list of sources."""
        with self._change:
            self._put(FindInputs, FindInputs())

    def ask(self, message: SaveShow | OpenShow) -> None:
        """A page saves or opens a show; as a command, it keeps its place in the order."""
        with self._change:
            self._commands += 1
            self._put(self._commands, message)

    def serving(self) -> None:
        """Pages can be opened."""
        with self._change:
            self._put(Serving, Serving())

    def alive(self) -> None:
        """The event loop runs."""
        with self._change:
            self._put(Alive, Alive())

    def _put(self, key: Hashable, message: FromWeb) -> None:
        self._drop(key)
        self._unsent[key] = message
        if isinstance(message, Say):
            client = message.origin.name
            self._said[client] += 1
            if self._said[client] > MAX_UNSENT:
                self._drop(next(at for at, said in self._unsent.items() if _client(said) == client))
        self._change.notify()

    def _drop(self, key: Hashable) -> None:
        if isinstance(old := self._unsent.pop(key, None), Say):
            self._said[old.origin.name] -= 1

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._unsent)
                batch, self._unsent = list(self._unsent.values()), OrderedDict()
                self._said.clear()
            try:
                for message in batch:
                    self._channel.send(message)
            except OSError:  # the bridge process is gone; `listen_to_bridge` ends this process
                return
            time.sleep(sum(map(_cost, batch)) / UPLINK_RATE)


def _cost(message: FromWeb) -> int:
    return MIN_PATTERN_COST if isinstance(message, Say) and is_pattern(message.address) else 1


def _client(message: FromWeb) -> str | None:
    """Name of the client that said it; None for the process's own messages."""
    return message.origin.name if isinstance(message, Say) else None


def serve(pipe: Connection, listening: socket.socket, rings: Mapping[str, RingReader], settings: Settings) -> None:
    """Main function of the web process; returns when the bridge process sends `Stop` or is gone."""
    leave_to_parent(lambda: os._exit(1))
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("web: %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    channel: Channel[FromWeb, ToWeb] = Channel(pipe, TO_WEB)
    uplink = Uplink(channel, settings.table)
    hub = Hub(settings.table, settings.about, uplink.say, uplink.find_inputs)
    gallery = Gallery(rings, uplink.watch, settings.widest)
    shows = ShowApi(hub.table, uplink.ask)
    tree = oscquery_routes(hub.table, lambda: hub.controls, hub.telemetry, settings.osc, uplink.say_all)
    app = Guard(application(hub, gallery, shows, tree), settings.host, settings.token)
    server = HttpServer("web", app, listening, max_message=MAX_MESSAGE)
    if hasattr(os, "nice"):
        server.loop.call_soon(os.nice, NICENESS)  # on Linux: for the loop's thread and the threads that it starts
    server.loop.call_soon(gallery.start, server.loop)
    server.loop.call_soon(uplink.serving)
    server.loop.call_soon(_beat, server.loop, uplink.alive)
    server.start()
    listen_to_bridge(
        channel,
        lambda news: server.loop.call_soon_threadsafe(hub.absorb, news),
        lambda answer: server.loop.call_soon_threadsafe(shows.answered, answer),
    )
    gallery.stop()
    server.stop()


def _beat(loop: asyncio.AbstractEventLoop, alive: Callable[[], None]) -> None:
    """Give a sign of life from the event loop, now and again and again."""
    alive()
    loop.call_later(ALIVE_PERIOD_S, _beat, loop, alive)


def listen_to_bridge(
    channel: Channel[FromWeb, ToWeb], absorb: Callable[[News], object], answered: Callable[[ShowAnswer], object]
) -> None:
    """Pass on the messages of the bridge process until it sends `Stop` or is gone; garbled ones are logged."""
    while True:
        try:
            message = channel.receive()
        except (EOFError, OSError):
            log.info("the bridge process is gone")
            return
        except MessageError as error:
            log.error("%s", error)
            continue
        match message:
            case Stop():
                return
            case Batch(batch):
                for news in batch:
                    if isinstance(news, ShowAnswer):
                        answered(news)
                    else:
                        absorb(news)
            case _:
                assert_never(message)
