"""The two targets of the control room: raw HTTP requests, and messages on its WebSockets.

uvicorn's protocol, the guard and the application run on an event loop of this thread, without sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

from starlette.types import ASGIApp, Message
from uvicorn.server import ServerState

from bridge.connections import Limits
from bridge.control.oscquery.http import oscquery_routes
from bridge.http_server import HttpServer
from bridge.table import TABLE
from bridge.web.messages import ShowAnswer
from bridge.web.server.application import application
from bridge.web.server.gallery import Gallery
from bridge.web.server.guard import Guard
from bridge.web.server.hub import Hub
from bridge.web.server.json_requests import MAX_MESSAGE
from bridge.web.server.show_api import ShowApi

TOKEN = "secret"
PATHS = ("/api/socket", "/api/preview", "/")
UNLIMITED = Limits(bytes_per_s=1e12, bytes_burst=1e12, requests_per_s=1e9, requests_burst=1e9)
"""All inputs come from one address."""

SETTLE_S = 0.02
"""Longest wait for a handler before it is cancelled: some wait for pictures that never come here."""


class _NoPictures(Gallery):
    """A gallery without a thread and without pictures."""

    async def one(self, kind: str) -> bytes | None:
        """None: no picture comes."""
        return None


def _application() -> ASGIApp:
    hub = Hub(TABLE, {}, lambda address, args, client: None, lambda: None)
    tree = oscquery_routes(
        TABLE, lambda: hub.controls, hub.telemetry, ("127.0.0.1", 9000), lambda messages, origin: None
    )
    shows = ShowApi(TABLE, lambda message: shows.answered(ShowAnswer(message.number)))
    return application(hub, _NoPictures({}, lambda kinds: None), shows, tree)


class _Transport(asyncio.Transport):
    """A connection that throws away what is written; `set_protocol` (an upgrade) is obeyed."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("192.0.2.1", 5000), "sockname": ("127.0.0.1", 9001)})
        self.protocol = protocol
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Throw it away."""

    def is_closing(self) -> bool:
        """Whether the server has closed the connection."""
        return self.closed

    def close(self) -> None:
        """Note that the server has closed the connection."""
        self.closed = True

    abort = close

    def get_protocol(self) -> asyncio.BaseProtocol:
        """What receives the bytes."""
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Another protocol receives the bytes from now on."""
        self.protocol = cast(asyncio.Protocol, protocol)

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def pause_reading(self) -> None:
        """Nothing: an input comes in one piece."""

    def resume_reading(self) -> None:
        """Nothing, likewise."""


@contextlib.contextmanager
def _loop() -> Iterator[tuple[asyncio.AbstractEventLoop, list[BaseException]]]:
    """An event loop, and the exceptions that it reports."""
    loop = asyncio.new_event_loop()
    failed: list[BaseException] = []

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failed.append(context.get("exception") or RuntimeError(context["message"]))

    loop.set_exception_handler(report)
    try:
        yield loop, failed
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _settle(cancel: bool = False) -> None:
    """Let every handler finish or wait for something; if `cancel`, end those that wait."""
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, waiting = await asyncio.wait(tasks, timeout=SETTLE_S)
        for task in waiting if cancel else ():
            task.cancel()
        if cancel:
            await asyncio.gather(*waiting, return_exceptions=True)


def _raise(failed: list[BaseException]) -> None:
    """Raise the first failure, except that of a handler which `_settle` ended."""
    real = [error for error in failed if not isinstance(error, asyncio.CancelledError)]
    failed.clear()
    if real:
        raise real[0]


class _Raising(logging.Handler):
    """Turns the error that uvicorn logs for a failed handler back into that error."""

    def __init__(self, failed: list[BaseException]) -> None:
        super().__init__(logging.ERROR)
        self._failed = failed

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of one record."""
        caught = record.exc_info[1] if record.exc_info else None
        self._failed.append(caught or RuntimeError(record.getMessage()))


@contextlib.contextmanager
def http() -> Iterator[Callable[[bytes], None]]:
    """What a connection receives. First byte: `1` for a server open to the network, else one of this machine only."""
    app = _application()
    with _loop() as (loop, failed):
        handler, root = _Raising(failed), logging.getLogger()
        root.addHandler(handler)
        asyncio.set_event_loop(loop)
        listening = socket.socket()  # of servers that never start
        servers = []
        for guard in (Guard(app, "127.0.0.1"), Guard(app, "0.0.0.0", TOKEN)):
            server = HttpServer("fuzz", guard, listening, max_message=MAX_MESSAGE, limits=UNLIMITED)
            server._server.config.load()
            servers.append(server)

        async def feed(server: HttpServer, data: bytes) -> None:
            transport = _Transport(server._accept(server._server.config, ServerState(), {}, loop))
            transport.protocol.connection_made(transport)
            if data:
                transport.protocol.data_received(data)
            await _settle()
            transport.protocol.connection_lost(None)
            await _settle(cancel=True)

        def check(data: bytes) -> None:
            loop.run_until_complete(feed(servers[data[:1] == b"1"], data[1:]))
            _raise(failed)

        try:
            yield check
        finally:
            root.removeHandler(handler)
            listening.close()
            asyncio.set_event_loop(None)


@contextlib.contextmanager
def websocket() -> Iterator[Callable[[bytes], None]]:
    """Messages of one page, one a line: text where it is UTF-8, else binary. The first byte chooses the socket."""
    guarded = Guard(_application(), "127.0.0.1")
    with _loop() as (loop, failed):

        async def feed(path: str, lines: list[bytes]) -> None:
            messages: list[Message] = [{"type": "websocket.connect"}]
            for line in lines:
                try:
                    messages.append({"type": "websocket.receive", "text": line.decode()})
                except UnicodeDecodeError:
                    messages.append({"type": "websocket.receive", "bytes": line})
            messages.append({"type": "websocket.disconnect", "code": 1001})
            waiting = iter(messages)

            async def receive() -> Message:
                return next(waiting, messages[-1])

            async def send(message: Message) -> None:
                pass

            scope: dict[str, Any] = {
                "type": "websocket",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "root_path": "",
                "scheme": "ws",
                "headers": [(b"host", b"localhost")],
                "client": ("192.0.2.1", 5000),
                "server": ("127.0.0.1", 9001),
                "subprotocols": [],
                "state": {},
            }
            await guarded(scope, receive, send)
            await _settle(cancel=True)

        def check(data: bytes) -> None:
            path = PATHS[data[0] % len(PATHS)] if data else PATHS[0]
            loop.run_until_complete(feed(path, data[1:].split(b"\n")))
            _raise(failed)

        yield check
