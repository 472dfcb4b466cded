"""`/api/show`: a page saves the show as a file and opens one.

The bridge process makes the file and obeys it. What is no valid show is refused here: its size and its parsing are
nothing that the process with the pictures should bear.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bridge.control.origin import Origin
from bridge.control.table import ControlTable
from bridge.show.show_file import MAX_BYTES, ShowError, unpack
from bridge.web.messages import OpenShow, SaveShow, ShowAnswer
from bridge.web.server.json_requests import read_body, trust_in
from engine.errors import ControlError

ANSWER_S = 10.0
"""Longest wait for the bridge process."""

MAX_AT_ONCE = 4
"""Most requests that are carried out at a time, each with a file of up to `MAX_BYTES` in memory."""


class ShowApi:
    """The endpoint. Everything runs on the event loop's thread, except the check of a file.

    Args:
        table: every control, command and reading.
        ask: sends a request to the bridge process; never blocks.
    """

    def __init__(self, table: ControlTable, ask: Callable[[SaveShow | OpenShow], None]) -> None:
        self._table = table
        self._ask = ask
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[ShowAnswer]] = {}
        self._busy = 0

    def answered(self, answer: ShowAnswer) -> None:
        """Take an answer of the bridge process; one that nobody awaits any more is dropped."""
        future = self._asked.get(answer.number)
        if future is not None and not future.done():
            future.set_result(answer)

    async def save(self, request: Request) -> Response:
        """GET: the show as a file."""
        return await self._bounded(self._save())

    async def open(self, request: Request) -> Response:
        """POST: replace the show by the file in the body; with `?check=1`, only say what it holds."""
        return await self._bounded(self._open(request))

    async def _bounded(self, work: Coroutine[Any, Any, Response]) -> Response:
        if self._busy >= MAX_AT_ONCE:
            work.close()
            return _refused(503, "Too many shows are saved or opened now.", "Try again in a moment.")
        self._busy += 1
        try:
            return await work
        finally:
            self._busy -= 1

    async def _save(self) -> Response:
        answer = await self._answer(SaveShow(next(self._numbers)))
        if answer.error:
            return _refused(503, answer.error, answer.remedy)
        headers = {"content-disposition": 'attachment; filename="show.tidecast"', "cache-control": "no-store"}
        return Response(answer.data, media_type="application/json", headers=headers)

    async def _open(self, request: Request) -> Response:
        try:
            data = await read_body(request, MAX_BYTES)
        except ControlError as error:
            return _refused(413, error.message, "Choose a .tidecast file.")
        try:
            await asyncio.to_thread(unpack, data, self._table)
        except ShowError as error:
            return _refused(400, error.message, error.remedy)
        replace = request.query_params.get("check") != "1"
        answer = await self._answer(OpenShow(next(self._numbers), data, replace, Origin("web:http", trust_in(request))))
        return _refused(400, answer.error, answer.remedy) if answer.error else JSONResponse(dict(answer.found))

    async def _answer(self, message: SaveShow | OpenShow) -> ShowAnswer:
        future: asyncio.Future[ShowAnswer] = asyncio.get_running_loop().create_future()
        self._asked[message.number] = future
        self._ask(message)
        try:
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            return ShowAnswer(message.number, error="Tidecast does not answer.", remedy="Try again in a moment.")
        finally:
            del self._asked[message.number]


def _refused(status: int, error: str, remedy: str) -> Response:
    return JSONResponse({"error": error, "remedy": remedy}, status)
