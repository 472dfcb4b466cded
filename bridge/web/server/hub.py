"""The web process's copy of the state, and the pages that are connected.

The bridge process keeps the copy up to date. Changes are merged into one pending message per page, so that a slow page
gets fewer messages but never older values. Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, assert_never, cast

from bridge.control.table import ControlTable
from bridge.control.telemetry import Telemetry
from bridge.web.messages import (
    ControlsChanged,
    ErrorNote,
    ErrorsReported,
    InputsFound,
    MidiState,
    News,
    ReadingsChanged,
    Reply,
    SnapshotsStored,
)
from bridge.web.server.page_messages import PageAsks, PageNews, PageSays

ERRORS_KEPT = 40
HISTORY_SECONDS = 120.0
HISTORY_PERIOD_S = 0.5
HISTORY_READINGS = ("latency", "latency_p95", "fps_out")

Send = Callable[[str, Sequence[Any], str], None]
"""Sends (full OSC address, arguments, name of the client) to the bridge process; never blocks."""


class Client:
    """One page's outgoing side: everything that changed since its last message, merged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pending: dict[str, Any] = {}
        self._wake = asyncio.Event()

    def tell(self, news: PageNews) -> None:
        """Merge `news`: mappings are updated, lists of events extended, everything else replaced."""
        for key, value in news.items():
            if key in ("controls", "readings"):
                self._pending.setdefault(key, {}).update(value)
            elif key in ("errors", "replies"):
                kept = self._pending.setdefault(key, deque(maxlen=ERRORS_KEPT))
                kept.extend(value)
            else:
                self._pending[key] = value
        self._wake.set()

    async def news(self) -> PageNews:
        """Wait until there are changes, and return them."""
        await self._wake.wait()
        self._wake.clear()
        taken, self._pending = self._pending, {}
        return cast(PageNews, {k: list(v) if isinstance(v, deque) else v for k, v in taken.items()})


class Hub:
    """The state that pages see.

    Args:
        table: every control, command and reading.
        about: guides, examples and properties of the preview, which do not change while the server runs.
        send: sends a message of a page to the bridge process.
        find_inputs: asks the bridge process for the list of sources; never blocks.
    """

    def __init__(self, table: ControlTable, about: dict[str, Any], send: Send, find_inputs: Callable[[], None]) -> None:
        self.table = table
        self.about = about
        self.controls: dict[str, Any] = {c.name: c.default for c in table.controls}
        self.telemetry = Telemetry(table)
        self.inputs: list[dict[str, Any]] | None = None
        self.snapshots: list[int] = []
        self.midi: dict[str, Any] = {}
        self.errors: deque[ErrorNote] = deque(maxlen=ERRORS_KEPT)
        self.history: deque[list[float]] = deque(maxlen=int(HISTORY_SECONDS / HISTORY_PERIOD_S))
        self.send = send
        self.find_inputs = find_inputs
        self._clients: dict[str, Client] = {}
        self._count = 0
        self._next_history = 0.0

    @property
    def clients(self) -> int:
        """Pages that are connected."""
        return len(self._clients)

    def join(self) -> Client:
        """Add a page; its first message is the whole state."""
        self._count += 1
        client = Client(f"web:{self._count}")
        self._clients[client.name] = client
        client.tell({"you": client.name, **self.everything()})
        self.find_inputs()
        return client

    def leave(self, client: Client) -> None:
        """Forget a page."""
        self._clients.pop(client.name, None)

    def everything(self) -> PageNews:
        """The whole state as a page (or `GET /api/state`) gets it."""
        return {
            "controls": {name: [value, ""] for name, value in self.controls.items()},
            "readings": self.telemetry.snapshot(),
            "errors": list(self.errors),
            "history": list(self.history),
            "clients": self.clients,
            "inputs": self.inputs,
            "snapshots": self.snapshots,
            "midi": self.midi,
        }

    def absorb(self, message: News) -> None:
        """Take a message of the bridge process and pass it on to every page; a reply goes only to its own page."""
        match message:
            case ControlsChanged(controls):
                self.controls |= {name: value for name, (value, _) in controls.items()}
                self.tell_all({"controls": dict(controls)})
            case ReadingsChanged(values):
                readings = {name: value for name, value in values.items() if _finite(value)}
                self.telemetry.update(**readings)
                self._remember()
                self.tell_all({"readings": readings})
            case ErrorsReported(notes):
                self.errors.extend(notes)
                self.tell_all({"errors": list(notes)})
            case InputsFound(sources):
                self.inputs = [dataclasses.asdict(source) for source in sources]
                self.tell_all({"inputs": self.inputs})
            case SnapshotsStored(numbers):
                self.snapshots = list(numbers)
                self.tell_all({"snapshots": self.snapshots})
            case MidiState():
                self.midi = dataclasses.asdict(message)
                self.tell_all({"midi": self.midi})
            case Reply(name, address, args):
                if name in self._clients:
                    self._clients[name].tell({"replies": [[address, list(args)]]})
            case _:
                assert_never(message)

    def tell_all(self, news: PageNews) -> None:
        """Tell every page."""
        for client in self._clients.values():
            client.tell(news)

    def obey(self, client: Client, message: PageSays | PageAsks) -> None:
        """Carry out one message of a page."""
        match message:
            case PageAsks():
                self.find_inputs()
            case PageSays(address, args):
                self.send(address, args, client.name)
            case _:
                assert_never(message)

    def _remember(self) -> None:
        """Add a point to the history of the plotted readings, twice a second."""
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
    """Whether JSON can represent it: it has no NaN or infinity."""
    return not isinstance(value, float) or math.isfinite(value)
