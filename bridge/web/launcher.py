"""The bridge's side of the web process: starts it, tells it what changes, and restarts it when it dies.

`WebProcess` starts the process (`server.process.serve`), tells it what changes and does what its pages ask. HTTP, JPEG
and their load stay in the web process; the bridge process only runs two small threads and, while a page watches, copies
one picture per preview frame. Imports neither a web framework nor the engine.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, assert_never

from bridge.control.origin import Origin
from bridge.control.snapshot_commands import COLORS
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.listening import listen
from bridge.service import Service
from bridge.show.live import LiveShow
from bridge.show.show_file import MAX_BYTES
from bridge.video.base import SourceInfo
from bridge.video.table import schemes
from bridge.web.access import page_url, token_for
from bridge.web.guides import Names, guides
from bridge.web.messages import (
    KINDS,
    Alive,
    Batch,
    ChangesPending,
    CuesTold,
    FindInputs,
    FromWeb,
    MidiState,
    OpenShow,
    Reply,
    SaveShow,
    Say,
    Serving,
    Settings,
    SnapshotsStored,
    Watch,
    WordsKnown,
)
from bridge.web.outbox import Outbox
from bridge.web.preview import Preview
from bridge.web.server_process import ServerProcess
from bridge.web.show_exchange import ShowExchange
from bridge.web.source_search import SourceSearch
from engine.frame import Frame

log = logging.getLogger(__name__)

TELEMETRY_PERIOD_S = 0.1
NEWS_PERIOD_S = 0.015
"""Shortest time between two batches of messages to the web process; limits the cost of an OSC flood."""

LISTS_PERIOD_S = 0.5
PREVIEW_FPS = 24.0
PREVIEW_WIDEST = 640
START_WAIT_S = 8.0
"""How long `start` waits for the page; a show starts even without it."""

RESTART_WAIT_S = 0.5
RESTART_WAIT_MAX_S = 8.0

TICK_S = 0.25
"""Interval at which the web process's signs of life are checked."""


class WebProcess:
    """Serves the control room page from a process of its own. `start` and `stop` are idempotent and repeatable.

    Args:
        store, telemetry: the live controls and readings that the page shows and drives.
        width, height: size of the output at the start, in pixels.
        host: address to listen at; any address but loopback requires the token.
        port: TCP port; 0 takes a free one (after `start`, the attribute `port` says which).
        token: the token; if empty, a new one where one is needed.
        outputs: URIs of the outputs, for the guides.
        osc_host, osc_port: where Tidecast listens for OSC, for the guides.
        preview_fps: most preview pictures per second of each kind.
        preview_widest: longest side of a preview picture, pixels.
        inputs: lists the sources that can be seen; may take seconds, runs on a thread of its own.
        snapshots: the stored snapshots; must be quick.
        midi: the state of MIDI, None while it is off; must be quick.
        show: saves and opens show files; without it, pages can do neither.
        words: the words that the model knows, None until it is open; must be quick.
        pending: the changes that wait for the beat; must be quick.
        cues: the cue list; must be quick.
        examples: prompts that the page offers, one tap each.
        engine: the models and sizes that the page offers (`bridge.process.engine.choice.offered`).
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        width: int,
        height: int,
        *,
        host: str = "127.0.0.1",
        port: int = 9001,
        token: str = "",
        outputs: Sequence[str] = ("ndi:Tidecast",),
        osc_host: str = "127.0.0.1",
        osc_port: int = 9000,
        preview_fps: float = PREVIEW_FPS,
        preview_widest: int = PREVIEW_WIDEST,
        inputs: Callable[[], Iterable[SourceInfo]] | None = None,
        snapshots: Callable[[], SnapshotsStored] | None = None,
        midi: Callable[[], MidiState | None] | None = None,
        show: LiveShow | None = None,
        words: Callable[[], WordsKnown | None] | None = None,
        pending: Callable[[], ChangesPending] | None = None,
        cues: Callable[[], CuesTold] | None = None,
        examples: Sequence[str] = (),
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._preview = Preview(width, height, preview_fps, preview_widest)
        self._host = host
        self._wanted_port = port
        self._fixed_token = token
        self._names = Names(socket.gethostname().upper(), tuple(outputs), osc_host, osc_port)
        self._widest = preview_widest
        self._outbox = Outbox()
        self._search = SourceSearch(inputs, self._outbox) if inputs is not None else None
        self._shows = ShowExchange(show, self._outbox.answer)
        self._examples = list(examples)
        self._engine = dict(engine or {"models": [], "sizes": []})
        self._pending = pending
        lists: tuple[Callable[[], SnapshotsStored | MidiState | WordsKnown | CuesTold | None] | None, ...]
        lists = (snapshots, midi, words, cues)
        self._lists = [read for read in lists if read is not None]
        self._reported: set[str] = set()
        self.token = ""
        self.port = 0
        self._listening: socket.socket | None = None
        self._server: ServerProcess | None = None
        self._telling = threading.Lock()  # held while messages go to the web process or it is exchanged for another
        self._services = [
            Service("web-watch", self._watch, telemetry.error),
            Service("web-tell", self._tell, telemetry.error),
        ]
        self._unlisten: list[Callable[[], None]] = []
        self._stopping = threading.Event()
        self._serving = threading.Event()

    @property
    def url(self) -> str:
        """The page's address, with its token; valid after `start`."""
        return page_url(self._host, self.port, self.token)

    @property
    def _output_url(self) -> str:
        """The address of the page with the output alone."""
        page, query, token = self.url.partition("?")
        return f"{page}output{query}{token}"

    @property
    def watched(self) -> frozenset[str]:
        """The kinds of pictures that some page watches."""
        return self._preview.watched

    @property
    def pid(self) -> int:
        """Process id of the web process; 0 when there is none."""
        server = self._server
        return server.pid if server is not None else 0

    @property
    def about(self) -> dict[str, Any]:
        """What the page shows beside the controls, as JSON: guides, examples, inputs, models, preview, colours."""
        return {
            "guides": guides(dataclasses.replace(self._names, page=self._output_url)),
            "examples": self._examples,
            "colors": COLORS,
            "show": {"most_bytes": MAX_BYTES},
            "inputs": schemes(),
            "engine": self._engine,
            "preview": {"fps": self._preview.fps, "kinds": KINDS, "size": self._preview.size},
        }

    def start(self) -> None:
        """Listen and start the web process; returns when the page can be opened, or a few seconds later.

        Raises:
            PortInUseError: if the port is taken.
            ConfigError: if the host is not an address of this machine, the port may not be used, or the token is too
                easily guessed.
        """
        if self._listening is not None:
            return
        self._stopping.clear()
        self.token = token_for(self._host, self._fixed_token)
        self._listening = listen(self._host, self._wanted_port)
        self.port = int(self._listening.getsockname()[1])
        self._preview.open()
        self._unlisten = [
            self._store.listen(self._changed),
            self._store.listen_errors(self._outbox.error),
            self._telemetry.listen_errors(self._outbox.error),
        ]
        self._serving.clear()
        for service in self._services:
            service.start()
        if not self._serving.wait(START_WAIT_S):
            self._telemetry.error("web", "The page is slow to start; the show goes on without it until then.")

    def stop(self) -> None:
        """End the web process and free the port. Takes a few seconds at most, whatever that process does."""
        if self._listening is None:
            return
        self._stopping.set()
        for unlisten in self._unlisten:
            unlisten()
        self._outbox.wake()
        for service in self._services:
            service.stop()
        self._shows.stop()
        self._preview.close()
        self._listening.close()
        self._listening = None

    def offer(self, which: str, frame: Frame) -> None:
        """Offer a frame for the preview. Cheap, never waits, and does nothing when nobody watches.

        Call it with every frame; the preview's rate decides which of them are copied. Each kind must be offered by
        one thread only.

        Args:
            which: "input" or "output".
            frame: any size; the page sees its proportions.
        """
        self._preview.offer(which, frame)

    def _watch(self) -> None:
        """Thread: keep a web process running; whatever ends one, or keeps one from starting, another is started."""
        wait_s = RESTART_WAIT_S
        while not self._stopping.is_set():
            self._serving.clear()
            try:
                reason = self._run_process()
            except Exception as error:  # no descriptors, memory or processes left; none of it ends the watch
                log.exception("the web process could not be started or watched")
                reason = f"The web process could not be started: {type(error).__name__}: {error}."
            if self._stopping.is_set():
                return
            if self._serving.is_set():
                wait_s = RESTART_WAIT_S
            self._telemetry.error("web", f"{reason} The page comes back by itself; the show and its controls go on.")
            self._stopping.wait(wait_s)
            wait_s = min(2 * wait_s, RESTART_WAIT_MAX_S)

    def _run_process(self) -> str:
        """Run one web process from start to end; returns why it has to be replaced."""
        assert self._listening is not None
        osc = (self._names.osc_host, self._names.osc_port)
        table = dataclasses.replace(self._store.table, owners=())
        settings = Settings(self._host, self.token, osc, self._widest, self.about, table)
        server = ServerProcess(settings, self._listening, self._preview, self._obey, self._telemetry.error)
        try:
            with self._telling:
                self._outbox.tell_everything(self._store.values())
                self._server = server
            while not self._stopping.is_set():
                if reason := server.wait(TICK_S):
                    return reason
            return ""
        finally:
            with self._telling:
                self._server = None
            self._preview.watched = frozenset()
            if not server.end(gently=self._stopping.is_set()):
                self._telemetry.error("web", f"The web process {server.pid} cannot be killed and is left behind.")

    def _obey(self, message: FromWeb) -> None:
        match message:
            case Say(address, args, origin):
                self._store.handle(
                    address, args, origin, reply=lambda a, v: self._outbox.reply(Reply(origin.name, a, tuple(v)))
                )
            case Watch(kinds):
                self._preview.watched = kinds
            case FindInputs():
                if self._search is not None:
                    self._search.ask()
            case SaveShow() | OpenShow():
                self._shows.ask(message)
            case Serving():
                self._serving.set()
            case Alive():
                pass  # `ServerProcess` has noticed
            case _:
                assert_never(message)

    def _tell(self) -> None:
        """Thread: tell the web process what changed, at once for controls, ten times a second for readings.

        While it does not read, changes are merged in the outbox: it gets the newest values when it reads again.
        """
        next_lists_s = 0.0
        while not self._stopping.is_set():
            self._outbox.wait(TELEMETRY_PERIOD_S)
            self._outbox.readings(self._telemetry.snapshot())
            if self._pending is not None:
                self._outbox.state(self._pending())
            if time.monotonic() >= next_lists_s:
                next_lists_s = time.monotonic() + LISTS_PERIOD_S
                self._read_lists()
            with self._telling:
                if self._server is not None and not self._server.channel.busy and (news := self._outbox.take()):
                    self._server.channel.post(Batch(tuple(news)))
            self._stopping.wait(NEWS_PERIOD_S)

    def _read_lists(self) -> None:
        for read in self._lists:
            try:
                if (found := read()) is not None:
                    self._outbox.state(found)
            except Exception as error:  # the page goes without this list; each failure is reported once
                what = f"A list for the page cannot be read: {type(error).__name__}: {error}"
                if what not in self._reported:
                    self._reported.add(what)
                    self._telemetry.error("web", what)

    def _changed(self, name: str, value: Any, origin: Origin) -> None:
        self._outbox.control(name, self._store.snapshot.value(name), origin.name)
