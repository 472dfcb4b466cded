"""uvicorn on a thread, for the page and for OSCQuery. Knows nothing of either.

What peers may use is bounded by `bridge.connections`; this module tells it when requests begin and end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

import uvicorn
from h11 import LocalProtocolError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol  # limits the size of request heads; httptools does not
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame

from bridge.connections import Connection, Connections, Limits
from bridge.listening import BACKLOG

log = logging.getLogger(__name__)

MAX_HEAD = 16 * 1024
"""Longest request head, in bytes."""

MAX_FRAGMENTS = 1024
"""Most fragments of a WebSocket message."""

STOP_TIMEOUT_S = 3.0

_CONNECTION = "connection"
"""Key of the connection in the state of a request's scope."""


class HttpServer:
    """Serves an application on a thread of its own, so that signals stay with the main thread. Starts only once.

    Not a `Service`: uvicorn has a stop flag of its own, and a uvicorn server can run only once.

    Args:
        name: the thread's name.
        app: the ASGI application; it is not told of start and end (no lifespan).
        listening: the listening socket; `stop` closes it.
        max_message: longest WebSocket message that is received, in bytes.
        limits: what the connections may use; requests beyond `Limits.proven` are answered with 503.

    Attributes:
        loop: the event loop that the thread runs; calls can be scheduled on it before the start.
    """

    def __init__(
        self, name: str, app: ASGIApp, listening: socket.socket, *, max_message: int, limits: Limits | None = None
    ) -> None:
        self._connections = Connections(limits or Limits())
        config = uvicorn.Config(
            _Bounded(app, self._connections),
            http=self._accept,  # type: ignore[arg-type]  # any function that returns a protocol will do
            h11_max_incomplete_event_size=MAX_HEAD,
            ws=_WebSocket,
            ws_max_size=max_message,
            ws_max_queue=16,
            ws_ping_interval=10.0,
            ws_ping_timeout=20.0,
            ws_per_message_deflate=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            backlog=BACKLOG,
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,  # it logs what strangers send; a defect of the application is logged here
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._listening = listening
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection, end the thread and free the port; waits three seconds at most."""
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)
        self._listening.close()

    def _accept(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Connection:
        return self._connections.accept(
            lambda connection: H11Protocol(config, server_state, {**app_state, _CONNECTION: connection}, _loop)
        )

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._serve())

    async def _serve(self) -> None:
        self._connections.start()
        await self._server.serve(sockets=[self._listening])
        self._connections.abort_all()  # peers that do not read outlast uvicorn's own end
        await asyncio.sleep(0)


class _WebSocket(WebSocketsSansIOProtocol):
    """Closes a connection whose message comes in too many fragments: empty ones count nothing towards its size."""

    def handle_cont(self, event: Frame) -> None:
        """Take a further fragment of a message."""
        if self.close_sent:
            return
        if len(self.frames) >= MAX_FRAGMENTS:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)


class _Bounded:
    """ASGI middleware: tells the connection what its requests do, delays those of an address that makes too many, and
    answers 503 when there is no place for another connection."""

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection = scope["state"][_CONNECTION]
        connection.begin(websocket=scope["type"] == "websocket")
        try:
            if (wait_s := self._connections.of(connection.address).requests.take()) > 0:
                await asyncio.sleep(wait_s)
            if self._connections.may_serve(connection):
                await self._app(scope, _paced(receive, connection), _noticed(send, connection))
            else:
                await _refuse(scope, receive, send)
        except (ClientDisconnect, LocalProtocolError) as error:
            log.debug("a peer left, or what followed the head of its request is not HTTP: %r", error)
        except Exception:
            log.exception("the application failed")
            raise  # uvicorn answers 500
        finally:
            connection.finish()


def _paced(receive: Receive, connection: Connection) -> Receive:
    """`receive`, delaying the messages of a WebSocket that sends too many: what is not received is not read."""

    async def paced() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive" and (wait_s := connection.messages.take()) > 0:
            await asyncio.sleep(wait_s)
        return message

    return paced


def _noticed(send: Send, connection: Connection) -> Send:
    """`send`, noticing that the application answers with success."""

    async def noticed(message: Message) -> None:
        if message["type"] == "websocket.accept":
            connection.proven = True
            connection.accepted()
        elif message["type"] == "http.response.start" and message["status"] < 400:
            connection.proven = True
        await send(message)

    return noticed


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1013, "reason": "Too many connections."})
        return
    body = b"Too many connections are open. Close some pages and try again."
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"retry-after", b"2"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
