"""The endpoints by which a page on this machine looks for a file to play.

Only pages on this machine may: what others may choose is said by `input.allow`. They see names and sizes, no contents.
A folder that does not answer holds up a thread, never the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bridge.control.origin import Trust
from bridge.web.server.folders import TOPIC, find_file, list_folder
from bridge.web.server.json_requests import body, refusal, trust_in
from engine.errors import ControlError

ANSWER_S = 5.0
"""How long a folder may take to answer."""

MAX_THREADS = 4
"""Most folders that are looked at, or have not answered, at the same time."""

T = TypeVar("T")


class Worker:
    """Runs what may block on threads, a few at a time, and waits for it for a limited time.

    Args:
        limit_s: longest wait.
    """

    def __init__(self, limit_s: float = ANSWER_S) -> None:
        self._limit_s = limit_s
        self._running = 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`.

        Raises:
            ControlError: it takes too long, or too much is running already.
        """
        if self._running >= MAX_THREADS:
            raise ControlError(TOPIC, "Other folders have not answered yet.", "Wait until they do, then try again.")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Callable[[], T]] = loop.create_future()

        def finish(result: Callable[[], T]) -> None:
            self._running -= 1
            if not done.cancelled():
                done.set_result(result)

        def body() -> None:
            try:
                value = work()
            except Exception as error:  # whatever it is, it is the caller's
                failed = error

                def result() -> T:
                    raise failed
            else:

                def result() -> T:
                    return value

            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(finish, result)

        self._running += 1
        try:
            threading.Thread(target=body, name="folder", daemon=True).start()
        except RuntimeError:  # no threads left
            self._running -= 1
            raise ControlError(TOPIC, "There are no threads left to look with.", "Try again later.") from None
        try:
            async with asyncio.timeout(self._limit_s):
                return (await done)()
        except TimeoutError:
            raise ControlError(
                TOPIC,
                f"The folder has not answered for {self._limit_s:g} s.",
                "Is its drive or its network still there? Choose another one.",
            ) from None


class Files:
    """The endpoints.

    Args:
        present: returns the address of the present input.
    """

    def __init__(self, present: Callable[[], str]) -> None:
        self._present = present
        self._worker = Worker()

    def routes(self) -> list[BaseRoute]:
        """The routes."""
        return [
            Route(TOPIC, self._list, methods=["POST"]),
            Route(f"{TOPIC}/find", self._find, methods=["POST"]),
        ]

    async def _list(self, request: Request) -> Response:
        """POST {"folder", "find", "kind"}: what is in a folder; without a kind, videos and pictures."""
        if (refused := _refused(request)) is not None:
            return refused
        try:
            folder, find, kind = _texts(await body(request), "folder", "find", "kind")
            present = self._present()
            found = await self._worker.run(lambda: list_folder(folder, find, present, kind or "video"))
        except ControlError as error:
            return refusal(error)
        return JSONResponse(asdict(found), headers={"cache-control": "no-store"})

    async def _find(self, request: Request) -> Response:
        """POST {"name", "size", "folder"}: where the file is that was dropped on the page; an empty path if nowhere."""
        if (refused := _refused(request)) is not None:
            return refused
        try:
            wanted = await body(request)
            name, folder = _texts(wanted, "name", "folder")
            size = wanted.get("size")
            if isinstance(size, bool) or not isinstance(size, int):
                raise ControlError(TOPIC, "The size of the file is missing.", 'Send {"name": "a.mp4", "size": 1000}.')
            present = self._present()
            path = await self._worker.run(lambda: find_file(name, size, folder, present))
        except ControlError as error:
            return refusal(error)
        return JSONResponse({"path": path}, headers={"cache-control": "no-store"})


def _refused(request: Request) -> Response | None:
    """The answer to a page on another machine; None for one on this machine."""
    if trust_in(request) >= Trust.MACHINE:
        return None
    error = ControlError(
        TOPIC,
        "The files of this machine are shown to pages on this machine only.",
        "Type an address that input.allow lists, or choose the file on the machine that Tidecast runs on.",
    )
    return refusal(error, 403)


def _texts(message: object, *names: str) -> list[str]:
    """These texts of a JSON object; one that is left out is empty.

    Raises:
        ControlError: it is no object, or one of them is no text.
    """
    if isinstance(message, dict):
        texts = [message.get(name, "") for name in names]
        if all(isinstance(text, str) for text in texts):
            return texts
    wanted = ", ".join(f'"{name}": text' for name in names)
    raise ControlError(TOPIC, "This message is not understood.", f"Send {{{wanted}}}.")
