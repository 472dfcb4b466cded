"""The control room as the bridge process sees it: a cheap proxy of the web process.

`ControlRoom` starts the process (`process.serve`), tells it what changes and does what its pages ask. Pages, JPEG,
HTTP and their load are all over there; here are two small threads and, while a page watches, one copy of a picture
per preview frame. When the web process dies it is started again. Must not know HTTP, the engine or any transport.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.process.frame_ring import FrameRing, RingWriter
from bridge.web.access import is_loopback, new_token, page_url
from bridge.web.guides import Names, guides
from bridge.web.messages import KINDS, Settings
from engine.errors import PortInUseError, TidecastError
from engine.frame import Frame

log = logging.getLogger(__name__)

TELEMETRY_PERIOD_S = 0.1
NEWS_PERIOD_S = 0.015
"""Shortest time between two messages to the web process: a flood of OSC costs no more than this."""

LISTS_PERIOD_S = 0.5
INPUTS_PERIOD_S = 2.0
"""Shortest time between two searches for sources."""

PREVIEW_FPS = 24.0
PREVIEW_WIDEST = 640
START_WAIT_S = 8.0
"""How long `start` waits for the page to be there; a show does not fail for want of its page."""

STOP_TIMEOUT_S = 4.0
RESTART_WAIT_S = 0.5
RESTART_WAIT_MAX_S = 8.0
MAX_PENDING_REPLIES = 64
ERRORS_KEPT = 40


def _web_process(*args: Any) -> None:
    """Main function of the web process. The web framework is imported over there only."""
    from bridge.web.process import serve

    serve(*args)


class ControlRoom:
    """Serves the control room page from a process of its own. `start` and `stop` are idempotent and repeatable.

    Args:
        store, telemetry: the live controls and readings that the page shows and drives.
        width, height: size of every offered frame, pixels.
        host: address to listen at; anything but loopback makes the token compulsory.
        port: TCP port; 0 takes a free one (`port` tells which after `start`).
        token: the token; by default a new one, where one is needed.
        output: URI of the output, for the guides.
        osc_host, osc_port: where OSC is listened for, for the guides.
        preview_fps, preview_widest: bounds of the preview, pictures per second and kind, pixels.
        inputs: lists the sources that can be seen; may take seconds, runs on a thread of its own.
        snapshots: numbers of the stored snapshots; quick.
        midi: `{"learning": address or "", "bindings": {full OSC address: words for the knob}, "ports": names of the
            open devices}`; quick.
        examples: words to try, offered beside the prompts, one tap each.
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
        output: str = "ndi:Tidecast",
        osc_host: str = "127.0.0.1",
        osc_port: int = 9000,
        preview_fps: float = PREVIEW_FPS,
        preview_widest: int = PREVIEW_WIDEST,
        inputs: Callable[[], Iterable[Any]] | None = None,
        snapshots: Callable[[], Iterable[int]] | None = None,
        midi: Callable[[], Mapping[str, Any]] | None = None,
        examples: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._size = (width, height)
        self._host = host
        self._wanted_port = port
        self._fixed_token = token
        self._names = Names(socket.gethostname().upper(), output, osc_host, osc_port)
        self._preview_period_ns = int(1e9 / preview_fps)
        self._widest = preview_widest
        self._inputs = inputs
        self._examples = list(examples)
        self._lists: dict[str, Callable[[], Any]] = {}
        if snapshots is not None:
            self._lists["snapshots"] = lambda: sorted(snapshots())
        if midi is not None:
            self._lists["midi"] = lambda: dict(midi())
        self.token = ""
        self.port = 0
        self._listening: socket.socket | None = None
        self._rings: dict[str, FrameRing] = {}
        self._writers: dict[str, RingWriter] = {}
        self._next_ns: dict[str, int] = {}
        self._watched: frozenset[str] = frozenset()
        self._process: Any = None
        self._pipe: Any = None
        self._threads: list[threading.Thread] = []
        self._unlisten: list[Callable[[], None]] = []
        self._stopping = threading.Event()
        self._life = threading.Lock()  # held while the process is replaced or ended
        self._serving = threading.Event()
        self._change = threading.Condition()
        self._news: dict[str, Any] = {}
        self._errors: deque[list[Any]] = deque(maxlen=ERRORS_KEPT)
        self._looking = threading.Event()
        self._looked_s = float("-inf")

    @property
    def url(self) -> str:
        """The page's address, with its token; valid after `start`."""
        return page_url(self._host, self.port, self.token)

    @property
    def wants_preview(self) -> bool:
        """Whether some page watches a picture."""
        return bool(self._watched)

    @property
    def watched(self) -> frozenset[str]:
        """The kinds of pictures that some page watches."""
        return self._watched

    @property
    def pid(self) -> int:
        """Process id of the web process; 0 when there is none."""
        process = self._process
        return process.pid or 0 if process is not None else 0

    def start(self) -> None:
        """Listen and start the web process; returns when the page can be opened, or a few seconds later.

        Raises:
            PortInUseError: if the port is taken.
        """
        if self._listening is not None:
            return
        self._stopping.clear()
        self.token = "" if is_loopback(self._host) else (self._fixed_token or new_token())
        self._listening = _listen(self._host, self._wanted_port)
        self.port = int(self._listening.getsockname()[1])
        width, height = self._size
        self._rings = {kind: FrameRing(width, height, depth=1, metadata_bytes=0) for kind in KINDS}
        self._writers = {kind: ring.writer() for kind, ring in self._rings.items()}
        self._next_ns = dict.fromkeys(KINDS, 0)
        self._unlisten = [
            self._store.listen(self._changed),
            self._store.listen_errors(self._erred),
            self._telemetry.listen_errors(self._erred),
        ]
        self._launch()
        self._threads = [
            threading.Thread(target=self._receive, name="room-receive", daemon=True),
            threading.Thread(target=self._tell, name="room-tell", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        if not self._serving.wait(START_WAIT_S):
            self._telemetry.error("web", "The page is slow to come up; the show goes on without it until it is there.")

    def stop(self) -> None:
        """End the web process and free the port. Returns within a few seconds whatever that process does."""
        if self._listening is None:
            return
        with self._life:
            self._stopping.set()
        for unlisten in self._unlisten:
            unlisten()
        with self._change:
            self._change.notify_all()
        self._process.join(STOP_TIMEOUT_S)  # the telling thread's last word makes it end
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        for thread in self._threads:
            thread.join()
        self._process.close()
        self._process = None
        self._pipe.close()
        self._watched = frozenset()
        for writer in self._writers.values():
            writer.close()
        for ring in self._rings.values():
            ring.close()
        self._writers, self._rings = {}, {}
        self._listening.close()
        self._listening = None

    def offer(self, which: str, frame: Frame) -> None:
        """Hand over a frame for the preview: cheap, never waits, and does nothing when nobody watches.

        Call it with every frame; the preview's own rate decides which of them are copied. Not thread-safe for
        one kind: each kind belongs to one thread.

        Args:
            which: "input" or "output".
            frame: of the size given at the start; others are left out.
        """
        if which not in self._watched:
            return
        now = time.monotonic_ns()
        if now < self._next_ns[which] or (frame.width, frame.height) != self._size:
            return
        self._next_ns[which] = max(self._next_ns[which] + self._preview_period_ns, now - self._preview_period_ns)
        with contextlib.suppress(ValueError, KeyError):  # stopped at this very moment
            self._writers[which].put(Frame(frame.rgb(), seq=frame.seq))

    def _launch(self) -> None:
        """Start a web process."""
        about = {
            "guides": guides(self._names),
            "examples": self._examples,
            "names": {**dataclasses.asdict(self._names), "sender": self._names.sender},
            "preview": {"fps": 1e9 / self._preview_period_ns, "kinds": KINDS, "size": self._size},
        }
        osc = (self._names.osc_host, self._names.osc_port)
        table = dataclasses.replace(self._store.table, owners=())
        settings = Settings(self._host, self.token, osc, self._widest, about, table)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        readers = {kind: ring.reader() for kind, ring in self._rings.items()}
        self._serving.clear()
        self._process = context.Process(
            target=_web_process, args=(theirs, self._listening, readers, settings), name="tidecast-web", daemon=True
        )
        self._process.start()
        theirs.close()
        for reader in readers.values():
            reader.close()
        self._pipe = ours
        with self._change:
            values = {name: (value, "") for name, value in self._store.values().items()}
            self._news = {"controls": values, "readings": self._telemetry.snapshot(), "errors": list(self._errors)}
            self._change.notify()

    def _receive(self) -> None:
        """Thread: do what pages ask; start a web process that died again."""
        wait_s = RESTART_WAIT_S
        while True:
            try:
                for message in self._pipe.recv():
                    self._obey(*message)
            except (EOFError, OSError):
                self._watched = frozenset()
                if self._serving.is_set():
                    wait_s = RESTART_WAIT_S
                if self._stopping.wait(wait_s):
                    return
                wait_s = min(2 * wait_s, RESTART_WAIT_MAX_S)
                self._telemetry.error("web", "The control room's process died and is started again.")
                with self._life:
                    if self._stopping.is_set():
                        return
                    self._process.join()
                    self._process.close()
                    self._launch()

    def _obey(self, verb: str, *rest: Any) -> None:
        match verb:
            case "say":
                address, args, client = rest
                self._store.handle(address, args, client, reply=lambda a, v: self._reply(client, a, v))
            case "watch":
                self._watched = rest[0]
            case "ask":
                self._look()
            case "serving":
                self._serving.set()

    def _tell(self) -> None:
        """Thread: tell the web process what changed, at once for controls, ten times a second for readings."""
        told: dict[str, Any] = {}
        next_lists_s = 0.0
        last_process = None
        while not self._stopping.is_set():
            with self._change:
                self._change.wait_for(lambda: self._news or self._stopping.is_set(), TELEMETRY_PERIOD_S)
                news, self._news = self._news, {}
                if self._process is not last_process:
                    told, last_process = {}, self._process
            changed = {k: v for k, v in self._telemetry.snapshot().items() if told.get(f"readings.{k}") != v}
            if changed:
                news["readings"] = {**news.get("readings", {}), **changed}
                told |= {f"readings.{k}": v for k, v in changed.items()}
            if time.monotonic() >= next_lists_s:
                next_lists_s = time.monotonic() + LISTS_PERIOD_S
                for name, function in self._lists.items():
                    value = function()
                    if told.get(name) != value:
                        told[name] = news[name] = value
            if news:
                with contextlib.suppress(OSError):  # the process died: `_receive` sees to it
                    self._pipe.send(news)
                self._stopping.wait(NEWS_PERIOD_S)
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def _changed(self, name: str, value: Any, origin: str) -> None:
        with self._change:
            self._news.setdefault("controls", {})[name] = (self._store.snapshot.value(name), origin)
            self._change.notify()

    def _erred(self, topic: str, reason: str) -> None:
        with self._change:
            self._errors.append([time.time(), topic, reason])
            self._news["errors"] = [*self._news.get("errors", ()), self._errors[-1]][-ERRORS_KEPT:]
            self._change.notify()

    def _reply(self, client: str, address: str, args: Any) -> None:
        with self._change:
            kept = self._news.setdefault("replies", deque(maxlen=MAX_PENDING_REPLIES))
            kept.append((client, address, tuple(args)))
            self._change.notify()

    def _look(self) -> None:
        """Look for sources on a thread, unless that is going on or was done just now."""
        if self._inputs is None or self._looking.is_set() or time.monotonic() < self._looked_s + INPUTS_PERIOD_S:
            return
        self._looking.set()
        threading.Thread(target=self._search, name="room-inputs", daemon=True).start()

    def _search(self) -> None:
        assert self._inputs is not None
        try:
            found = [_as_dict(source) for source in self._inputs()]
        except TidecastError as error:
            self._erred("/tidecast/inputs", str(error))
            return
        finally:
            self._looked_s = time.monotonic()
            self._looking.clear()
        with self._change:
            self._news["inputs"] = found
            self._change.notify()


def _as_dict(source: Any) -> dict[str, Any]:
    """A source as JSON: uri, title, width, height, fps."""
    fields = dataclasses.asdict(source) if dataclasses.is_dataclass(source) else dict(source)  # type: ignore[arg-type]
    return {k: v for k, v in fields.items() if isinstance(v, (str, int, float, bool, type(None)))}


def _listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        PortInUseError: if the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where SO_REUSEADDR would let two listen
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise PortInUseError(
            f"The control room cannot listen at {host}, TCP port {port}: {error.strerror}.",
            "Choose another with --web-port, or 0 for any free one.",
        ) from None
    return listening
