"""Records the output, and optionally the input, to files, each in a process of its own.

Each process takes frames from a ring that drops the oldest: when the disk or the encoder is slow, the recording loses
frames, the show none. `encode` is what it does with them. `Recorder.want` sets what is to be recorded; two callbacks
report what is.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import numpy as np

from bridge.ipc.child_process import PassedConnection
from bridge.ipc.frame_ring import FrameRing, RingWriter
from bridge.service import Service
from bridge.video.alpha import rgba
from bridge.video.errors import reason
from bridge.video.files.encode import Form, write
from bridge.video.files.takes import remove_empty, remove_left_behind, reserve
from engine.errors import TidecastError, TransportError
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

KINDS = ("output", "input")
RING_DEPTH = 24
MIN_FREE_BYTES = 200 * 1024 * 1024
"""A recording is not started with less free space than this on the disk."""

MAX_FINISHING = 2
"""Ended recordings of one kind that may still be writing when another one starts; with more of them it has to wait, so
that switching on and off repeatedly does not fill the machine with processes."""

FINISH_TIMEOUT_S = 10.0
Status = Callable[[str], None]
"""Called with the files that are being written, separated by ", "; empty when there is none."""

Trouble = Callable[[str], None]
"""Called with a sentence about a recording that failed or lost frames."""


@dataclass(slots=True)
class _Recording:
    """One file that is being written."""

    kind: str
    form: Form
    path: Path
    ring: FrameRing
    writer: RingWriter
    process: BaseProcess
    pipe: Connection

    def end(self) -> None:
        """Let the process write the waiting frames and finish the file."""
        self.writer.close()
        with contextlib.suppress(OSError):  # the process has died
            self.pipe.send("end")


class Recorder:
    """Starts and ends recordings. Every method is thread-safe, and only `close` waits for the disk.

    Args:
        width, height: expected size of the frames in pixels, both even. Frames of another size, or with
            another kind of alpha, begin a new file.
        folder: where files are written; created when needed.
        status, trouble: called on the recorder's thread with what is recorded and with what went wrong.
        fps: expected frames per second (determines how often the file is written out; any rate is recorded).

    Attributes:
        folder: where files are written.
    """

    def __init__(
        self, width: int, height: int, folder: Path, *, status: Status, trouble: Trouble, fps: float = 30.0
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"a recording needs even sizes, got {width}x{height}")
        self._forms = dict.fromkeys(KINDS, Form(width, height))  # of the frames that were offered last
        self._spare: dict[str, np.ndarray] = {}  # where the pictures of a kind get their alpha
        self.folder = folder
        self._fps = fps
        self._status = status
        self._trouble = trouble
        self._recordings: dict[str, _Recording] = {}
        self._finishing: list[_Recording] = []
        self._wanted: frozenset[str] = frozenset()
        self._change = threading.Condition()
        self._service = Service("record", self._run, lambda _, text: trouble(text), self._notice)
        self._service.start()

    def want(self, record: bool, record_input: bool) -> None:
        """Set what is to be recorded from now on: the output, and in addition the input. Returns at once."""
        with self._change:
            self._wanted = frozenset(KINDS if record_input else KINDS[:1]) if record else frozenset()
            self._change.notify()

    def offer(self, which: str, frame: Frame) -> None:
        """Record a frame if its kind is being recorded. That costs one copy; it never waits.

        Call it from one thread for each kind.

        Args:
            which: "output" or "input".
            frame: when its size or its alpha has changed, frames are left out until a new file has begun, half a second
                or so.
        """
        form = Form.of(frame)
        if form != self._forms[which]:
            self._forms[which] = form
        recording = self._recordings.get(which)
        if recording is None or recording.form != form:
            return
        pixels, kind = frame.rgb(), PixelFormat.RGB
        if frame.alpha is not None:
            spare = self._spare.get(which)
            if spare is None or spare.shape[:2] != frame.alpha.shape:
                spare = self._spare[which] = np.empty((form.height, form.width, 4), np.uint8)
            pixels, kind = rgba(pixels, frame.alpha, into=spare), PixelFormat.RGBA
        with contextlib.suppress(ValueError):  # the recording has just ended
            recording.writer.put(Frame(pixels, kind, frame.pts_ns, frame.captured_ns, frame.seq))

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every recording, by kind."""
        return {kind: recording.process.pid or 0 for kind, recording in self._recordings.items()}

    def close(self) -> None:
        """Finish every file and stop the thread; waits a few seconds at most."""
        with self._change:
            self._wanted = frozenset()
        self._service.stop(FINISH_TIMEOUT_S + 5.0)

    def _notice(self) -> None:
        with self._change:
            self._change.notify()

    def _run(self) -> None:
        """The recorder's thread: starts and ends recordings as wanted, and notices processes that have died."""
        while True:
            with self._change:
                self._change.wait_for(self._must_act, 0.25 if self._recordings or self._finishing else None)
                closing = self._service.stopping.is_set()
                to_end, to_begin, wanted = self._ending(), self._missing(), self._wanted
            for kind in to_end:
                recording = self._recordings.pop(kind)
                recording.end()
                self._finishing.append(recording)
                if kind in wanted:
                    log.info("the %s is %s now: a new file begins", kind, self._forms[kind])
                else:
                    self._report_status()
            for kind in to_begin:
                self._begin(kind)
            for kind, recording in list(self._recordings.items()):
                if not recording.process.is_alive():
                    del self._recordings[kind]
                    recording.end()
                    self._finish(recording)
                    self._give_up(kind)
            for recording in [r for r in self._finishing if closing or not r.process.is_alive()]:
                self._finishing.remove(recording)
                self._finish(recording)
            if closing:
                return

    def _must_act(self) -> bool:
        return self._service.stopping.is_set() or bool(self._ending() or self._missing())

    def _ending(self) -> list[str]:
        """Kinds that are being recorded but are not wanted, or whose pictures have another form by now."""
        recordings = self._recordings.items()
        return [kind for kind, r in recordings if kind not in self._wanted or r.form != self._forms[kind]]

    def _missing(self) -> list[str]:
        """Kinds that are wanted, are not being recorded, and may start."""
        finishing = [recording.kind for recording in self._finishing]
        return [k for k in self._wanted if k not in self._recordings and finishing.count(k) < MAX_FINISHING]

    def _begin(self, kind: str) -> None:
        try:
            form = self._forms[kind]
            width, height, _ = form
            if width % 2 or height % 2:
                raise TransportError(f"its pictures are {width}x{height}.", "Recordings need an even width and height.")
            pixels = PixelFormat.RGBA if form.alpha else PixelFormat.RGB
            ring = FrameRing(width, height, depth=RING_DEPTH, metadata_bytes=0, format=pixels)
            try:
                path = self._new_path(kind, form.suffix)
            except BaseException:
                ring.close()
                raise
        except (OSError, TidecastError) as error:
            self._trouble(f"The {kind} is not recorded: {error}")
            self._give_up(kind)
            return
        context = multiprocessing.get_context("spawn")
        ours, theirs = cast("tuple[Connection, Connection]", context.Pipe())  # on Windows it is another class
        reader = ring.reader()
        process = context.Process(
            target=write,
            args=(reader, path, form, self._fps, PassedConnection(theirs)),
            name="tidecast-record",
            daemon=True,
        )
        try:
            process.start()
        except Exception as error:  # out of processes, memory or file handles
            ours.close()
            ring.close()
            remove_empty(path)
            self._trouble(f"The {kind} is not recorded: its process could not be started: {reason(error)}.")
            self._give_up(kind)
            return
        finally:
            theirs.close()
            reader.close()
        self._recordings[kind] = _Recording(kind, form, path, ring, ring.writer(), process, ours)
        self._report_status()

    def _finish(self, recording: _Recording) -> None:
        """Wait for a process that was told to end, and report the result."""
        recording.process.join(FINISH_TIMEOUT_S)
        result = "its process died; the file is playable up to its last second."
        if recording.process.is_alive():
            recording.process.kill()
            recording.process.join()
            result = f"it was not finished within {FINISH_TIMEOUT_S:g} s; the file is playable up to its last second."
        with contextlib.suppress(EOFError, OSError):
            if recording.pipe.poll():
                result = recording.pipe.recv()
        if result:
            self._trouble(f"Recording {recording.path}: {result}")
        else:
            log.info("recorded %s", recording.path)
        remove_empty(recording.path)
        recording.pipe.close()
        recording.ring.close()
        recording.process.close()

    def _give_up(self, kind: str) -> None:
        """Stop a kind that failed until `want` is called again; if it is the output, stop the input as well."""
        with self._change:
            self._wanted = frozenset() if kind == "output" else self._wanted - {kind}
        self._report_status()

    def _report_status(self) -> None:
        self._status(", ".join(str(recording.path) for recording in self._recordings.values()))

    def _new_path(self, kind: str, suffix: str) -> Path:
        """A new, empty file in the folder.

        Raises:
            TransportError: if there is not enough free space on the disk.
            OSError: if the folder or the file cannot be created.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_left_behind(self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < MIN_FREE_BYTES:
            raise TransportError(
                f"only {free // 2**20} MiB are free in {self.folder}.", "Free some space, or choose another folder."
            )
        stem = time.strftime("Tidecast %Y-%m-%d %H-%M-%S") + (" input" if kind == "input" else "")
        return reserve(self.folder, stem, suffix)
