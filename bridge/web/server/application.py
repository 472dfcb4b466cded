"""The HTTP and WebSocket face of the control room: the page's files, the API, the preview sockets.

A starlette application over `Hub` (state) and `Gallery` (pictures). The API is described in bridge/web/README.md.
Knows neither the pipe nor the frame rings.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from importlib import resources
from typing import Any, assert_never

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridge.control.table import ControlTable
from bridge.pipeline.readings import DROP_CAUSES, STATES
from bridge.web.server.gallery import Gallery, Viewer
from bridge.web.server.hub import Client, Hub
from bridge.web.server.page_messages import PageDrew, PageWatches, parse_control, parse_preview, parse_said
from engine.control import PREFIX
from engine.controls import STAGES
from engine.errors import ControlError

log = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 1024
"""Longest request body or WebSocket message, bytes."""

MAX_SOCKETS = 48
"""Most WebSockets at a time, of all kinds together."""

TRY_LATER = 1013

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "js": "text/javascript; charset=utf-8",
    "webmanifest": "application/manifest+json",
}


def described(table: ControlTable) -> dict[str, Any]:
    """The whole table of controls, commands and readings as JSON, from which the page builds itself."""
    return {
        "prefix": PREFIX,
        "controls": [dataclasses.asdict(c) | {"numeric": c.numeric} for c in table.controls],
        "commands": [dataclasses.asdict(c) for c in table.commands],
        "telemetry": [dataclasses.asdict(r) for r in table.readings],
        "states": STATES,
        "stages": STAGES,
        "causes": DROP_CAUSES,
    }


class Site:
    """The page's files, read once: what is not among them does not exist, so no path can lead elsewhere."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for item in (resources.files("bridge.web") / "static").iterdir():
            kind = _TYPES.get(item.name.rpartition(".")[2])
            if item.is_file() and kind is not None:
                data = item.read_bytes()
                self._files[item.name] = (data, kind, f'"{hashlib.sha256(data).hexdigest()[:20]}"')

    def answer(self, name: str, request: Request) -> Response:
        """The file `name`, or 404."""
        if name not in self._files:
            return Response("There is nothing here.", 404)
        data, kind, etag = self._files[name]
        headers = {"etag": etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)


class Api:
    """The endpoints. One object per server."""

    def __init__(self, hub: Hub, gallery: Gallery) -> None:
        self._hub = hub
        self._gallery = gallery
        self._site = Site()
        self._sockets = 0

    def routes(self) -> list[BaseRoute]:
        """Every route of the control room except the page at `/`, which `application` negotiates."""
        return [
            Route("/static/{name}", self._file),
            Route("/api/table", self._table),
            Route("/api/state", self._state),
            Route("/api/picture/{which}.jpg", self._picture),
            Route("/api/send", self._send, methods=["POST"]),
            Route("/api/set", self._set, methods=["POST"]),
            WebSocketRoute("/api/socket", self._socket),
            WebSocketRoute("/api/preview", self._preview),
        ]

    def page(self, request: Request) -> Response:
        """The control room page."""
        return self._site.answer("index.html", request)

    def _file(self, request: Request) -> Response:
        return self._site.answer(request.path_params["name"], request)

    def _table(self, request: Request) -> Response:
        return JSONResponse({**described(self._hub.table), "about": self._hub.about})

    async def _state(self, request: Request) -> Response:
        return JSONResponse(self._hub.everything(), headers={"cache-control": "no-store"})

    async def _picture(self, request: Request) -> Response:
        which = request.path_params["which"]
        if which not in self._gallery.kinds:
            return Response("There is nothing here.", 404)
        picture = await self._gallery.one(which)
        if picture is None:
            return Response("No picture has come yet.", 503, headers={"retry-after": "1"})
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "no-store"})

    async def _send(self, request: Request) -> Response:
        """POST {"address", "args"}: one OSC-like message."""
        try:
            said = parse_said(await _body(request))
            address, args = said.address, said.args
            if address not in self._hub.table.targets:
                raise ControlError(address, "There is nothing at this address.", "GET /api/table lists them.")
        except ControlError as error:
            return _bad(error)
        self._hub.send(address, args, "web:http")
        return JSONResponse({"accepted": True}, 202)

    async def _set(self, request: Request) -> Response:
        """POST {name: value, ...}: set controls by name; answers the effective values."""
        try:
            wanted = await _body(request)
            if not isinstance(wanted, dict) or not wanted:
                raise ControlError("/api/set", "An object of names and values is needed.", 'Send {"strength": 0.5}.')
            by_name = self._hub.table.by_name
            unknown = sorted(set(wanted) - set(by_name))
            if unknown:
                raise ControlError("/api/set", f"There is no control named {unknown[0][:60]!r}.", "GET /api/table.")
            effective = {name: by_name[name].coerce(value) for name, value in wanted.items()}
        except ControlError as error:
            return _bad(error)
        for name, value in effective.items():
            self._hub.send(PREFIX + by_name[name].address, (value,), "web:http")
        return JSONResponse(effective)

    async def _socket(self, socket: WebSocket) -> None:
        """The page's control socket: news out, messages in."""
        if not await self._admit(socket):
            return
        client = self._hub.join()
        talking = asyncio.create_task(_talk(socket, client))
        try:
            async for text in _texts(socket):
                try:
                    self._hub.obey(client, parse_control(_decode(text)))
                except ControlError as error:
                    client.tell({"replies": [["/error", [error.address, str(error)]]]})
        finally:
            self._sockets -= 1
            self._hub.leave(client)
            await _end(talking)

    async def _preview(self, socket: WebSocket) -> None:
        """The preview socket: the page says what it watches and acknowledges what it drew."""
        if not await self._admit(socket):
            return
        viewer = self._gallery.join()
        showing = asyncio.create_task(_show(socket, viewer))
        try:
            async for text in _texts(socket):
                try:
                    message = parse_preview(_decode(text))
                except ControlError as error:
                    log.debug("preview: %s", error)
                    continue
                match message:
                    case PageWatches(kinds):
                        self._gallery.watch(viewer, kinds)
                    case PageDrew():
                        viewer.drawn()
                    case _:
                        assert_never(message)
        finally:
            self._sockets -= 1
            self._gallery.leave(viewer)
            await _end(showing)

    async def _admit(self, socket: WebSocket) -> bool:
        """Accept a socket while there is room; the caller gives the place back."""
        if self._sockets >= MAX_SOCKETS:
            await socket.close(TRY_LATER, "Too many pages are open.")
            return False
        self._sockets += 1
        try:
            await socket.accept()
        except (WebSocketDisconnect, RuntimeError):  # starlette raises RuntimeError when the peer is gone already
            self._sockets -= 1
            return False
        return True


def application(hub: Hub, gallery: Gallery, tree: Sequence[BaseRoute]) -> Starlette:
    """The application without its guard.

    Args:
        hub, gallery: the state and the pictures.
        tree: routes of the OSCQuery tree, which come after ours on the same port; they answer `/` for everybody
            who does not ask for a page.
    """
    api = Api(hub, gallery)

    class Front(Route):
        """`/` for a browser; with a query, such as `?HOST_INFO`, it means the tree."""

        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            """Match requests that accept a page."""
            wants = any(key == b"accept" and b"text/html" in value for key, value in scope.get("headers", ()))
            return super().matches(scope) if wants and not scope.get("query_string") else (Match.NONE, {})

    return Starlette(routes=[Front("/", api.page), *api.routes(), *tree])


async def _body(request: Request) -> Any:
    """The JSON body of a request.

    Raises:
        ControlError: if it is too long or not JSON.
    """
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_MESSAGE:
            raise ControlError("/api", f"A message may have {MAX_MESSAGE} bytes at most.")
    return _decode(data)


def _decode(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ControlError: if it is not JSON, or holds half a surrogate pair, which is no text.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ControlError("/api", "This is not JSON.") from None
    return value


def _bad(error: ControlError) -> Response:
    return JSONResponse({"error": error.message, "remedy": error.remedy, "address": error.address}, 400)


async def _texts(socket: WebSocket) -> Any:
    """Every text message until the peer leaves; binary messages end the conversation."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is None:
            await socket.close(1003, "Send text.")
            return
        yield text


async def _talk(socket: WebSocket, client: Client) -> None:
    try:
        while True:
            await socket.send_text(json.dumps(await client.news(), separators=(",", ":")))
    except (WebSocketDisconnect, RuntimeError):  # the peer left between two messages
        return


async def _show(socket: WebSocket, viewer: Viewer) -> None:
    try:
        while True:
            await socket.send_bytes(await viewer.next())
    except (WebSocketDisconnect, RuntimeError):  # the peer left between two messages
        return


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
