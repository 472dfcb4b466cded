"""OSCQuery over HTTP and WebSocket: routes for any Starlette application, and a server for use without the page.

`oscquery_routes` serves the tree of `oscquery.tree`, and `LISTEN` over a WebSocket on the same port. `OscQueryServer`
serves these routes on a port of their own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridge.connections import Limits
from bridge.control.origin import Origin, Trust, trust_of
from bridge.control.osc.packet import MAX_DATAGRAM, Message, PacketError, build, parse
from bridge.control.oscquery.tree import ATTRIBUTES, find, host_info, tree
from bridge.control.refusals import RefusalLog
from bridge.control.store import ControlStore
from bridge.control.table import ControlTable
from bridge.control.telemetry import Telemetry
from bridge.http_server import HttpServer
from bridge.listening import listen

log = logging.getLogger(__name__)

UPDATE_PERIOD_S = 0.05
"""Interval at which changes are sent to a listening client."""

MAX_CONNECTIONS = 64
"""Most connections of clients that were answered; others have places of their own (`bridge.connections`)."""

MAX_LISTENERS = 16
MAX_PATHS = 512
MAX_PATH = 200
"""Longest path that a client can listen to, in characters."""

REQUESTS_PER_S = 25.0
"""Requests of one address: without the page, this server shares its process with the pictures."""

TRY_LATER = 1013

Send = Callable[[Sequence[Message], Origin], Any]
"""Passes the OSC messages of one packet of a client to the store, together: what one packet may cost is bounded."""

Values = Callable[[], Mapping[str, Any]]
"""Returns name and effective value of every control."""


def oscquery_routes(
    table: ControlTable,
    values: Values,
    telemetry: Telemetry,
    osc: tuple[str, int],
    send: Send,
    *,
    name: str = "Tidecast",
) -> list[BaseRoute]:
    """The routes of OSCQuery, to be mounted after all others: they match every path.

    Args:
        table: the controls, commands and readings.
        values: returns name and effective value of every control.
        telemetry: holds the readings.
        osc: host and UDP port of the OSC server.
        send: passes on messages that come over the WebSocket.
        name: shown to users who choose among servers.
    """
    endpoints = _Endpoints(table, values, telemetry, host_info(name, *osc), send)
    return [
        Route("/{path:path}", endpoints.answer, methods=["GET"]),
        WebSocketRoute("/{path:path}", endpoints.listen),
    ]


class _Endpoints:
    """The endpoints of the routes, and the state that they share."""

    def __init__(
        self, table: ControlTable, values: Values, telemetry: Telemetry, info: Mapping[str, Any], send: Send
    ) -> None:
        self._table = table
        self._values = values
        self._telemetry = telemetry
        self._info = info
        self._send = send
        self._malformed = RefusalLog()
        self._listeners = 0
        self._tree: dict[str, Any] = {}
        self._shown: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        self._built_s = 0.0

    def tree(self, at_most_s: float = 0.0) -> dict[str, Any]:
        """The tree with the newest values, built only when one has changed; it may be `at_most_s` old."""
        now = time.monotonic()
        if self._tree and now - self._built_s < at_most_s:
            return self._tree
        shown = dict(self._values()), self._telemetry.snapshot()
        if shown != self._shown:
            self._tree, self._shown = tree(self._table, *shown), shown
        self._built_s = now
        return self._tree

    async def answer(self, request: Request) -> Response:
        """A node, or one attribute of it: 404 for an unknown path, 400 for an unknown attribute, 204 for one that
        the node does not have."""
        asked = request.url.query.split("&")[0].partition("=")[0]
        if asked == "HOST_INFO":
            return _json(self._info)
        node = find(self.tree(), request.path_params["path"])
        if node is None:
            return Response("There is no such path.", 404)
        if not asked or asked == "token":
            return _json(node)
        if asked not in ATTRIBUTES:
            return Response("There is no such attribute.", 400)
        return _json({asked: node[asked]}) if asked in node else Response(status_code=204)

    async def listen(self, client: WebSocket) -> None:
        """Serve one client: it sends LISTEN and IGNORE as JSON text and OSC messages as binary; changes go back as
        OSC."""
        if self._listeners >= MAX_LISTENERS or not _same_site(client):
            await client.close(TRY_LATER)
            return
        self._listeners += 1
        paths: set[str] = set()
        updates: asyncio.Task[None] | None = None
        try:
            await client.accept()
            updates = asyncio.create_task(self._send_updates(client, paths))
            while (message := await client.receive())["type"] != "websocket.disconnect":
                if message.get("text") is not None:
                    _change_paths(message["text"], paths)
                elif message.get("bytes"):
                    self._obey(message["bytes"], client)
        except WebSocketDisconnect:
            log.debug("an OSCQuery client left")
        finally:
            self._listeners -= 1
            if updates is not None:
                updates.cancel()
                await asyncio.gather(updates, return_exceptions=True)

    def _obey(self, data: bytes, client: WebSocket) -> None:
        peer = client.client
        origin = Origin(
            f"oscquery:{peer.host}:{peer.port}" if peer else "oscquery", trust_of(peer.host) if peer else Trust.NETWORK
        )
        try:
            messages = parse(data) if len(data) <= MAX_DATAGRAM else []
        except PacketError as error:
            self._malformed.note(origin.name.rpartition(":")[0], str(error))
            return
        self._send(messages, origin)

    async def _send_updates(self, client: WebSocket, paths: set[str]) -> None:
        """Send the value of every path that the client listens to, once and then whenever it changes."""
        sent: dict[str, Any] = {}
        while True:
            await asyncio.sleep(UPDATE_PERIOD_S)
            if not paths:
                continue
            root = self.tree(at_most_s=UPDATE_PERIOD_S / 2)  # all listeners share it
            for path in list(paths):
                value = (find(root, path) or {}).get("VALUE")
                if value is not None and sent.get(path) != value:
                    sent[path] = value
                    await client.send_bytes(build(path, value))
            for path in sent.keys() - paths:
                del sent[path]


def _change_paths(text: str, paths: set[str]) -> None:
    """Carry out `{"COMMAND": "LISTEN" or "IGNORE", "DATA": path}`; anything else is ignored."""
    try:
        message = json.loads(text)
        command, path = message["COMMAND"], message["DATA"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if not isinstance(path, str) or len(path) > MAX_PATH:
        return
    if command == "LISTEN" and len(paths) < MAX_PATHS:
        paths.add(path)
    elif command == "IGNORE":
        paths.discard(path)


def _same_site(client: WebSocket) -> bool:
    """Whether the client is not a page of another site: browsers send the site as origin, other programs send none."""
    origin = client.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == client.headers.get("host")


def _json(content: Any) -> Response:
    return JSONResponse(content, headers={"cache-control": "no-store"})


class OscQueryServer:
    """OSCQuery on a port of its own, for use without the page. `start` and `stop` are idempotent.

    Args:
        store, telemetry: the live controls and readings.
        osc: host and UDP port of the OSC server.
        host: address to listen at.
        port: TCP port; 0 takes a free one (the attribute `port` holds it after `start`).
        guard: middleware around the routes that checks who may use them.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        osc: tuple[str, int],
        *,
        host: str = "127.0.0.1",
        port: int = 9001,
        guard: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    ) -> None:
        routes = oscquery_routes(store.table, store.values, telemetry, osc, store.handle_all)
        self._app = guard(Starlette(routes=routes))
        self._wanted = (host, port)
        self.port = port
        self._server: HttpServer | None = None

    def start(self) -> OscQueryServer:
        """Listen and serve.

        Raises:
            PortInUseError: if the port is taken.
            ConfigError: if the host is not an address of this machine, or the port may not be used.
        """
        if self._server is not None:
            return self
        listening = listen(*self._wanted)
        self.port = int(listening.getsockname()[1])
        limits = Limits(proven=MAX_CONNECTIONS, requests_per_s=REQUESTS_PER_S)
        self._server = HttpServer("oscquery", self._app, listening, max_message=MAX_DATAGRAM, limits=limits)
        self._server.start()
        return self

    def stop(self) -> None:
        """Close every connection and free the port."""
        if self._server is None:
            return
        self._server.stop()
        self._server = None

    def __enter__(self) -> OscQueryServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
