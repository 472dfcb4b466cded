"""What the web process knows of the show, and the pages that watch it.

Holds mirrors of the controls and the readings, fed by the bridge process; merges what changed into one pending
message per page, so that a slow page gets fewer messages and never older values. Must not know HTTP, pictures or
the pipe. Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from bridge.control.table import ControlTable
from bridge.control.telemetry import Telemetry
from engine.errors import ControlError

ERRORS_KEPT = 40
HISTORY_SECONDS = 120.0
HISTORY_PERIOD_S = 0.5
HISTORY_READINGS = ("latency", "latency_p95", "fps_out")

Send = Callable[[str, Sequence[Any], str], None]
"""Hands (full OSC address, arguments, name of the client) to the bridge process; never waits."""

Ask = Callable[[str], None]
"""Asks the bridge process for a fresh list ("inputs"); never waits."""


class Client:
    """One page's outgoing side: everything that changed since its last message, merged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pending: dict[str, Any] = {}
        self._wake = asyncio.Event()

    def tell(self, news: dict[str, Any]) -> None:
        """Merge `news`: mappings are updated, lists of happenings extended, everything else replaced."""
        for key, value in news.items():
            if key in ("controls", "readings"):
                self._pending.setdefault(key, {}).update(value)
            elif key in ("errors", "replies"):
                kept = self._pending.setdefault(key, deque(maxlen=ERRORS_KEPT))
                kept.extend(value)
            else:
                self._pending[key] = value
        self._wake.set()

    async def news(self) -> dict[str, Any]:
        """Wait until there is something to say and take it."""
        await self._wake.wait()
        self._wake.clear()
        taken, self._pending = self._pending, {}
        return {k: list(v) if isinstance(v, deque) else v for k, v in taken.items()}


class Hub:
    """The state that pages see.

    Args:
        table: what can be controlled and read.
        about: names, ports and guides that do not change while the server runs.
        send: carries a message of a page to the bridge process.
        ask: asks the bridge process for a list.
    """

    def __init__(self, table: ControlTable, about: dict[str, Any], send: Send, ask: Ask) -> None:
        self.table = table
        self.about = about
        self.controls: dict[str, Any] = {c.name: c.default for c in table.controls}
        self.telemetry = Telemetry(table)
        self.lists: dict[str, Any] = {"inputs": None, "snapshots": [], "midi": {}}
        self.errors: deque[list[Any]] = deque(maxlen=ERRORS_KEPT)
        self.history: deque[list[float]] = deque(maxlen=int(HISTORY_SECONDS / HISTORY_PERIOD_S))
        self.send = send
        self.ask = ask
        self._clients: dict[str, Client] = {}
        self._count = 0
        self._next_history = 0.0

    @property
    def clients(self) -> int:
        """Pages that are connected."""
        return len(self._clients)

    def join(self) -> Client:
        """A new page; its first message is the whole state."""
        self._count += 1
        client = Client(f"web:{self._count}")
        self._clients[client.name] = client
        client.tell({"you": client.name, **self.everything()})
        self.ask("inputs")
        return client

    def leave(self, client: Client) -> None:
        """Forget a page."""
        self._clients.pop(client.name, None)

    def everything(self) -> dict[str, Any]:
        """The whole state as a page (or `GET /api/state`) gets it."""
        return {
            "controls": {name: [value, ""] for name, value in self.controls.items()},
            "readings": self.telemetry.snapshot(),
            "errors": list(self.errors),
            "history": list(self.history),
            "clients": self.clients,
            **self.lists,
        }

    def absorb(self, news: dict[str, Any]) -> None:
        """Take what the bridge process says (see `room.ControlRoom`) and pass it on to every page."""
        self.controls |= {name: value for name, (value, _) in news.get("controls", {}).items()}
        if "readings" in news:
            news["readings"] = {k: v for k, v in news["readings"].items() if _finite(v)}
            self.telemetry.update(**news["readings"])
            self._remember()
        self.errors.extend(news.get("errors", ()))
        for key in self.lists.keys() & news.keys():
            self.lists[key] = news[key]
        for name, address, args in news.get("replies", ()):
            if name in self._clients:
                self._clients[name].tell({"replies": [[address, list(args)]]})
        public = {k: v for k, v in news.items() if k != "replies"}
        if public:
            self.tell_all(public)

    def tell_all(self, news: dict[str, Any]) -> None:
        """Tell every page."""
        for client in self._clients.values():
            client.tell(news)

    def obey(self, client: Client, message: Any) -> None:
        """Carry out one message of a page: `{"address": ..., "args": [...]}` or `{"ask": "inputs"}`.

        Raises:
            ControlError: if the message is not of that form; the text says how it should be.
        """
        if isinstance(message, dict) and message.get("ask") == "inputs":
            self.ask("inputs")
            return
        address, args = parse_message(message)
        self.send(address, args, client.name)

    def _remember(self) -> None:
        """Keep the readings that are drawn as a plot, twice a second."""
        now = time.monotonic()
        if now < self._next_history:
            return
        self._next_history = now + HISTORY_PERIOD_S
        readings = self.telemetry.snapshot()
        if "latency" not in readings:
            return
        point = [round(float(readings.get(name, 0.0)), 2) for name in HISTORY_READINGS]
        self.history.append(point)
        self.tell_all({"point": point})


def _finite(value: Any) -> bool:
    """Whether JSON can say it: it knows no NaN."""
    return not isinstance(value, float) or math.isfinite(value)


def parse_message(message: Any) -> tuple[str, tuple[Any, ...]]:
    """The (address, arguments) of a decoded JSON message.

    Raises:
        ControlError: if it is not `{"address": text, "args": [numbers, texts or booleans, at most 8]}`.
    """
    address, args = (message.get("address"), message.get("args", [])) if isinstance(message, dict) else (None, [])
    if isinstance(address, str) and len(address) <= 200 and isinstance(args, list) and len(args) <= 8:
        plain = tuple(a for a in args if isinstance(a, (str, int, float, bool)))
        if len(plain) == len(args):
            return address, plain
    raise ControlError(
        "/api", "This message is not understood.", 'Send {"address": "/tidecast/strength", "args": [0.5]}.'
    )
