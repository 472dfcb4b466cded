"""The web process's copy of the state, and the pages that are connected.

The bridge process keeps the copy up to date. Changes are merged into one pending message per page, so that a slow page
gets fewer messages but never older values. Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from bridge.control.origin import Origin, Trust
from bridge.control.table import ControlTable
from bridge.control.telemetry import Telemetry
from bridge.video.base import SourceInfo
from bridge.web.messages import (
    ChangesPending,
    ControlsChanged,
    ControlValue,
    CuesTold,
    ErrorNote,
    ErrorsReported,
    InputsFound,
    MidiState,
    News,
    ReadingsChanged,
    Reply,
    SnapshotsStored,
    WordsKnown,
)
from bridge.web.server.page_messages import (
    Joined,
    PageAsks,
    PageNews,
    PageSays,
    PageState,
    PageWords,
    Point,
    PromptsChecked,
)
from bridge.web.server.words import PromptCheck, page_words

ERRORS_KEPT = 40
REPLIES_KEPT = 40
HISTORY_SECONDS = 120.0
HISTORY_PERIOD_S = 0.5
HISTORY_READINGS = ("latency", "latency_p95", "fps_out", "motion_latency")

Send = Callable[[str, Sequence[Any], Origin], None]
"""Sends (full OSC address, arguments, who said it) to the bridge process; never blocks."""


class Client:
    """One page's outgoing side: everything that changed since its last message, merged."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.name = origin.name
        self._wake = asyncio.Event()
        self._clear()

    def _clear(self) -> None:
        self._controls: dict[str, ControlValue] = {}
        self._readings: dict[str, Any] = {}
        self._errors: deque[ErrorNote] = deque(maxlen=ERRORS_KEPT)
        self._newest: dict[type[PageNews], PageNews] = {}
        self._replies: deque[Reply] = deque(maxlen=REPLIES_KEPT)

    def tell(self, news: PageNews) -> None:
        """Merge `news`: controls and readings are updated, errors and replies added, everything else replaced."""
        match news:
            case ControlsChanged(controls):
                self._controls |= controls
            case ReadingsChanged(readings):
                self._readings |= readings
            case ErrorsReported(notes):
                self._errors.extend(notes)
            case Reply():
                self._replies.append(news)
            case (
                Joined()
                | Point()
                | InputsFound()
                | SnapshotsStored()
                | MidiState()
                | ChangesPending()
                | CuesTold()
                | PageWords()
                | PromptsChecked()
            ):
                self._newest[type(news)] = news
            case _:
                assert_never(news)
        self._wake.set()

    async def news(self) -> list[PageNews]:
        """Wait until there are changes, and return them; of each kind there is one message at most, except replies."""
        await self._wake.wait()
        self._wake.clear()
        taken = list(self._newest.values())  # the whole state, if it is here, comes first
        if self._controls:
            taken.append(ControlsChanged(self._controls))
        if self._readings:
            taken.append(ReadingsChanged(self._readings))
        if self._errors:
            taken.append(ErrorsReported(tuple(self._errors)))
        taken += self._replies
        self._clear()
        return taken


class Hub:
    """The state that pages see.

    Args:
        table: every control, command and reading.
        about: what the page shows beside the controls, as JSON; it does not change while the server runs.
        send: sends a message of a page to the bridge process.
        find_inputs: asks the bridge process for the list of sources; never blocks.
    """

    def __init__(self, table: ControlTable, about: dict[str, Any], send: Send, find_inputs: Callable[[], None]) -> None:
        self.table = table
        self.about = about
        self.controls: dict[str, Any] = {c.name: c.default for c in table.controls}
        self.telemetry = Telemetry(table)
        self.inputs: tuple[SourceInfo, ...] | None = None
        self.snapshots = SnapshotsStored(())
        self.midi: MidiState | None = None
        self.pending = ChangesPending(())
        self.cues = CuesTold((), False)
        self.words: PageWords | None = None
        self._prompts = PromptCheck()
        self.errors: deque[ErrorNote] = deque(maxlen=ERRORS_KEPT)
        self.history: deque[Point] = deque(maxlen=int(HISTORY_SECONDS / HISTORY_PERIOD_S))
        self.send = send
        self.find_inputs = find_inputs
        self._clients: dict[str, Client] = {}
        self._count = 0
        self._next_history = 0.0

    @property
    def clients(self) -> int:
        """Pages that are connected."""
        return len(self._clients)

    def join(self, trust: Trust) -> Client:
        """Add a page; its first message is the whole state."""
        self._count += 1
        client = Client(Origin(f"web:{self._count}", trust))
        self._clients[client.name] = client
        client.tell(Joined(client.name, self.everything(), trust >= Trust.MACHINE))
        self.find_inputs()
        return client

    def leave(self, client: Client) -> None:
        """Forget a page."""
        self._clients.pop(client.name, None)

    def everything(self) -> PageState:
        """The whole state as a page (or `GET /api/state`) gets it."""
        return PageState(
            controls=dict(self.controls),
            readings=self.telemetry.snapshot(),
            errors=tuple(self.errors),
            history=tuple(self.history),
            clients=self.clients,
            inputs=self.inputs,
            snapshots=self.snapshots,
            midi=self.midi,
            pending=self.pending,
            cues=self.cues,
            words=self.words,
            unknown=self._prompts.found,
        )

    def absorb(self, message: News) -> None:
        """Take a message of the bridge process and pass it on to every page; a reply goes only to its own page."""
        match message:
            case ControlsChanged(controls):
                self.controls |= {name: value for name, (value, _) in controls.items()}
                self.tell_all(message)
            case ReadingsChanged(values):
                readings = {name: value for name, value in values.items() if _finite(value)}
                self.telemetry.update(**readings)
                self._remember()
                self.tell_all(ReadingsChanged(readings))
            case ErrorsReported(notes):
                self.errors.extend(notes)
                self.tell_all(message)
            case InputsFound(sources):
                self.inputs = sources
                self.tell_all(message)
            case SnapshotsStored():
                self.snapshots = message
                self.tell_all(message)
            case MidiState():
                self.midi = message
                self.tell_all(message)
            case ChangesPending():
                self.pending = message
                self.tell_all(message)
            case CuesTold():
                self.cues = message
                self.tell_all(message)
            case WordsKnown(vocabulary):
                self.words = page_words(vocabulary)
                self._prompts.know(vocabulary)
                self.tell_all(self.words)
            case Reply(name):
                if name in self._clients:
                    self._clients[name].tell(message)
            case _:
                assert_never(message)
        if self._prompts.changed(self.controls, time.monotonic()):
            self.tell_all(self._prompts.found)

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
                self.send(address, args, client.origin)
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
        point = Point(*(round(float(readings.get(name, 0.0)), 2) for name in HISTORY_READINGS))
        self.history.append(point)
        self.tell_all(point)


def _finite(value: Any) -> bool:
    """Whether JSON can represent it: it has no NaN or infinity."""
    return not isinstance(value, float) or math.isfinite(value)
