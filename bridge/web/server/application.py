"""HTTP and WebSocket endpoints of the control room: the page's files, the API, the preview sockets.

A starlette application on top of `Hub` (state) and `Gallery` (pictures). bridge/web/README.md describes the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any, assert_never

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridge.connections import address_key
from bridge.control.origin import Origin
from bridge.control.table import ControlTable
from bridge.pipeline.readings import DROP_CAUSES, STATES
from bridge.web.messages import Reply
from bridge.web.server.files import Files
from bridge.web.server.gallery import Gallery, Viewer
from bridge.web.server.hub import Client, Hub
from bridge.web.server.json_requests import body, decode, refusal, trust_in
from bridge.web.server.page_messages import (
    PageDrew,
    PageNews,
    PageWatches,
    news_json,
    parse_control,
    parse_preview,
    parse_said,
    picture_version,
    state_json,
)
from bridge.web.server.show_api import ShowApi
from bridge.web.server.words import ADDRESS
from engine.control import PREFIX
from engine.controls import STAGES
from engine.errors import ControlError

log = logging.getLogger(__name__)

MAX_SOCKETS = 48
"""Most WebSockets at a time, of all kinds together."""

MAX_SOCKETS_PER_ADDRESS = 24
"""Most WebSockets of one address: twelve pages."""

SILENCE_S = 1.5
"""Longest time without a message to a page."""

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
        "controls": [c.described() | {"numeric": c.numeric} for c in table.controls],
        "commands": [dataclasses.asdict(c) for c in table.commands],
        "telemetry": [dataclasses.asdict(r) for r in table.readings],
        "states": STATES,
        "stages": STAGES,
        "causes": DROP_CAUSES,
    }


class Site:
    """The page's files, read once at the start; no other file can be reached, whatever the path."""

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
    """The endpoints of one server."""

    def __init__(self, hub: Hub, gallery: Gallery, shows: ShowApi) -> None:
        self._hub = hub
        self._gallery = gallery
        self._shows = shows
        self._site = Site()
        self._table_json = JSONResponse({**described(hub.table), "about": hub.about})  # it does not change
        self._files = Files(lambda: str(hub.controls.get("input", "")))
        self._sockets: Counter[str] = Counter()  # by address

    def routes(self) -> list[BaseRoute]:
        """Every route of the control room except the page at `/`, which `application` adds."""
        return [
            Route("/static/{name}", self._file),
            Route("/output", self._output),
            Route("/api/table", self._table),
            Route("/api/state", self._state),
            Route("/api/picture/{which}.jpg", self._picture),
            Route("/api/snapshots/{number}.jpg", self._snapshot),
            Route("/api/show", self._shows.save),
            Route("/api/show", self._shows.open, methods=["POST"]),
            Route(ADDRESS, self._words),
            Route("/api/send", self._send, methods=["POST"]),
            Route("/api/set", self._set, methods=["POST"]),
            *self._files.routes(),
            WebSocketRoute("/api/socket", self._socket),
            WebSocketRoute("/api/preview", self._preview),
        ]

    async def page(self, request: Request) -> Response:
        """The control room page."""
        return self._site.answer("index.html", request)

    async def _output(self, request: Request) -> Response:
        """The output's picture and nothing else, for a browser source of another program, or a screen."""
        return self._site.answer("output.html", request)

    async def _file(self, request: Request) -> Response:
        return self._site.answer(request.path_params["name"], request)

    async def _table(self, request: Request) -> Response:
        return self._table_json

    async def _state(self, request: Request) -> Response:
        return JSONResponse(state_json(self._hub.everything()), headers={"cache-control": "no-store"})

    async def _picture(self, request: Request) -> Response:
        which = request.path_params["which"]
        if which not in self._gallery.kinds:
            return Response("There is nothing here.", 404)
        picture = await self._gallery.one(which)
        if picture is None:
            return Response("No picture has come yet.", 503, headers={"retry-after": "1"})
        return Response(picture, media_type="image/jpeg", headers={"cache-control": "no-store"})

    async def _snapshot(self, request: Request) -> Response:
        """The picture of a snapshot; with its version as `v` it may be kept: another picture has another address."""
        pictures = {str(number): jpeg for number, jpeg in self._hub.snapshots.pictures.items()}
        jpeg = pictures.get(request.path_params["number"])
        if jpeg is None:
            return Response("There is no picture of this snapshot.", 404, headers={"cache-control": "no-store"})
        version = picture_version(jpeg)
        kept = "private, max-age=31536000, immutable" if request.query_params.get("v") == version else "no-cache"
        headers = {"etag": f'"{version}"', "cache-control": kept}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    async def _words(self, request: Request) -> Response:
        """The pictures of the words that the model knows; its address names the file, so that a browser may keep it."""
        pictures = self._hub.words.pictures if self._hub.words is not None else None
        if pictures is None:
            return Response("There are no pictures of words.", 404)
        return Response(pictures.jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})

    async def _send(self, request: Request) -> Response:
        """POST {"address", "args"}: one OSC-like message."""
        try:
            said = parse_said(await body(request))
            address, args = said.address, said.args
            if address not in self._hub.table.targets:
                raise ControlError(address, "There is nothing at this address.", "GET /api/table lists them.")
        except ControlError as error:
            return refusal(error)
        self._hub.send(address, args, Origin("web:http", trust_in(request)))
        return JSONResponse({"accepted": True}, 202)

    async def _set(self, request: Request) -> Response:
        """POST {name: value, ...}: set controls by name; answers the effective values."""
        try:
            wanted = await body(request)
            if not isinstance(wanted, dict) or not wanted:
                raise ControlError("/api/set", "An object of names and values is needed.", 'Send {"strength": 0.5}.')
            by_name = self._hub.table.by_name
            unknown = sorted(set(wanted) - set(by_name))
            if unknown:
                raise ControlError("/api/set", f"There is no control named {unknown[0][:60]!r}.", "GET /api/table.")
            effective = {name: by_name[name].coerce(value) for name, value in wanted.items()}
        except ControlError as error:
            return refusal(error)
        origin = Origin("web:http", trust_in(request))
        for name, value in effective.items():
            self._hub.send(PREFIX + by_name[name].address, (value,), origin)
        return JSONResponse(effective)

    async def _socket(self, socket: WebSocket) -> None:
        """The page's control socket: sends news, receives messages."""
        if not await self._admit(socket):
            return
        client = self._hub.join(trust_in(socket))
        sending = asyncio.create_task(_send_news(socket, client))
        try:
            async for text in _texts(socket):
                try:
                    self._hub.obey(client, parse_control(decode(text)))
                except ControlError as error:
                    client.tell(Reply(client.name, "/error", (error.address, str(error))))
        finally:
            self._release(socket)
            self._hub.leave(client)
            await _cancel(sending)

    async def _preview(self, socket: WebSocket) -> None:
        """The preview socket: sends pictures; receives what the page watches and acknowledgements of what it drew."""
        if not await self._admit(socket):
            return
        viewer = self._gallery.join()
        sending = asyncio.create_task(_send_pictures(socket, viewer))
        try:
            async for text in _texts(socket):
                try:
                    message = parse_preview(decode(text))
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
            self._release(socket)
            self._gallery.leave(viewer)
            await _cancel(sending)

    async def _admit(self, socket: WebSocket) -> bool:
        """Accept a socket unless there are too many; the caller releases its place at the end."""
        address = address_key(socket.client)
        if self._sockets.total() >= MAX_SOCKETS or self._sockets[address] >= MAX_SOCKETS_PER_ADDRESS:
            await socket.close(TRY_LATER, "Too many pages are open.")
            return False
        self._sockets[address] += 1
        try:
            await socket.accept()
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError: the peer is already gone
            self._release(socket)
            return False
        return True

    def _release(self, socket: WebSocket) -> None:
        """Give back the place of an admitted socket."""
        address = address_key(socket.client)
        self._sockets[address] -= 1
        if not self._sockets[address]:
            del self._sockets[address]


def application(hub: Hub, gallery: Gallery, shows: ShowApi, tree: Sequence[BaseRoute]) -> Starlette:
    """The application without its guard.

    Args:
        hub, gallery, shows: the state, the pictures, and the files of shows.
        tree: routes of the OSCQuery tree, which come after the control room's; they answer requests for `/` that do
            not accept HTML.
    """
    api = Api(hub, gallery, shows)

    class PageRoute(Route):
        """`/` for a browser; with a query, such as `?HOST_INFO`, it belongs to the OSCQuery tree."""

        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            """Match requests without a query that accept HTML."""
            wants = any(key == b"accept" and b"text/html" in value for key, value in scope.get("headers", ()))
            return super().matches(scope) if wants and not scope.get("query_string") else (Match.NONE, {})

    return Starlette(routes=[PageRoute("/", api.page), *api.routes(), *tree])


async def _texts(socket: WebSocket) -> Any:
    """Every text message until the peer leaves; a binary message closes the socket."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is None:
            await socket.close(1003, "Send text.")
            return
        yield text


async def _send_news(socket: WebSocket, client: Client) -> None:
    """Send what changes, and an empty object when nothing does, so that the page can tell silence from loss."""
    try:
        while True:
            news: list[PageNews] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENCE_S):
                    news = await client.news()
            await socket.send_text(json.dumps(news_json(news), separators=(",", ":")))
    except (WebSocketDisconnect, RuntimeError):  # the peer left between two messages
        return


async def _send_pictures(socket: WebSocket, viewer: Viewer) -> None:
    try:
        while True:
            await socket.send_bytes(await viewer.next())
    except (WebSocketDisconnect, RuntimeError):  # the peer left between two messages
        return


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
