"""Records the output, and optionally the input, to files, each in a process of its own.

Each process takes frames from a ring that drops the oldest: when the disk or the encoder is slow, the recording loses
frames, the show none. Files are fragmented MP4 (H.264), written out once a second, so that a file is playable up to its
last second however its process ends. `Recorder.want` sets what is to be recorded; two callbacks report what is.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np

from bridge.ipc.child_process import PassedConnection
from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from bridge.service import Service
from bridge.video.errors import reason
from bridge.video.files.takes import remove_empty, remove_left_behind, reserve
from engine.errors import TidecastError, TransportError
from engine.frame import Frame

log = logging.getLogger(__name__)

KINDS = ("output", "input")
RING_DEPTH = 24
MIN_FREE_BYTES = 200 * 1024 * 1024
"""A recording is not started with less free space than this on the disk."""

MAX_FINISHING = 2
"""Ended recordings of one kind that may still be writing when another one starts; with more of them it has to wait, so
that switching on and off repeatedly does not fill the machine with processes."""

FINISH_TIMEOUT_S = 10.0
NICENESS = 10
WAIT_S = 0.2
"""Interval at which a recording's process checks whether it should end, while no frames come."""

TICKS = 90_000
"""Ticks per second of the file's time base."""

Status = Callable[[str], None]
"""Called with the files that are being written, separated by ", "; empty when there is none."""

Trouble = Callable[[str], None]
"""Called with a sentence about a recording that failed or lost frames."""


@dataclass(slots=True)
class _Recording:
    """One file that is being written."""

    kind: str
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
        width, height: expected size of the frames in pixels, both even. Frames of another size begin a new file.
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
        self._sizes = dict.fromkeys(KINDS, (width, height))  # of the frames that were offered last
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
            frame: when its size has changed, frames are left out until a new file has begun, half a second or so.
        """
        size = self._sizes[which] = frame.width, frame.height
        recording = self._recordings.get(which)
        if recording is None or recording.writer.size != size:
            return
        with contextlib.suppress(ValueError):  # the recording has just ended
            recording.writer.put(Frame(frame.rgb(), pts_ns=frame.pts_ns, captured_ns=frame.captured_ns, seq=frame.seq))

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
                    log.info("the %s is %dx%d now: a new file begins", kind, *self._sizes[kind])
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
        """Kinds that are being recorded but are not wanted, or whose pictures have another size by now."""
        recordings = self._recordings.items()
        return [kind for kind, r in recordings if kind not in self._wanted or r.writer.size != self._sizes[kind]]

    def _missing(self) -> list[str]:
        """Kinds that are wanted, are not being recorded, and may start."""
        finishing = [recording.kind for recording in self._finishing]
        return [k for k in self._wanted if k not in self._recordings and finishing.count(k) < MAX_FINISHING]

    def _begin(self, kind: str) -> None:
        try:
            width, height = self._sizes[kind]
            if width % 2 or height % 2:
                raise TransportError(f"its pictures are {width}x{height}.", "Recordings need an even width and height.")
            ring = FrameRing(width, height, depth=RING_DEPTH, metadata_bytes=0)
            try:
                path = self._new_path(kind)
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
            target=write, args=(reader, path, self._fps, PassedConnection(theirs)), name="tidecast-record", daemon=True
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
        self._recordings[kind] = _Recording(kind, path, ring, ring.writer(), process, ours)
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

    def _new_path(self, kind: str) -> Path:
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
        return reserve(self.folder, time.strftime("Tidecast %Y-%m-%d %H-%M-%S") + (" input" if kind == "input" else ""))


def write(reader: RingReader, path: Path, fps: float, pipe: Connection) -> None:
    """Main function of a recording's process: writes frames from the ring to the file until told to end.

    It also ends when the parent is gone. At the end it sends one sentence through `pipe`, empty if all went well.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole process group; the parent handles it
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    from av.error import FFmpegError

    try:
        count = _encode(_frames(reader, pipe), reader.size, path, fps)
    except (FFmpegError, OSError, ValueError) as error:
        result = f"it ended early: {reason(error)}. Check the disk's free space and the folder's permissions."
    else:
        lost = reader.dropped
        result = f"{lost} of {count + lost} frames are missing: the disk or the encoder was too slow." if lost else ""
    with contextlib.suppress(OSError):  # the parent is gone
        pipe.send(result)


def _frames(reader: RingReader, pipe: Connection) -> Iterator[tuple[np.ndarray, int]]:
    """The pixels of every frame and when it was offered (`time.monotonic_ns()`), up to the last one in the ring."""
    with contextlib.suppress(EOFError):
        while True:
            frame = reader.get(WAIT_S)
            if frame is not None:
                yield frame.pixels, reader.queued_ns
            elif pipe.poll():
                return


def _encode(frames: Iterable[tuple[np.ndarray, int]], size: tuple[int, int], path: Path, fps: float) -> int:
    """Write the frames; returns how many there were.

    Raises:
        FFmpegError, OSError: if the file cannot be written.
        ValueError: if this PyAV has no H.264 encoder.
    """
    import av

    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
    count, first_ns, last_tick = 0, 0, -1
    with av.open(str(path), "w", format="mp4", container_options=fragmented) as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
        stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "18", "g": str(max(1, round(fps)))}
        stream.thread_count = 2
        for pixels, offered_ns in frames:
            first_ns = first_ns or offered_ns
            tick = max(last_tick + 1, (offered_ns - first_ns) * TICKS // 1_000_000_000)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, TICKS)
            container.mux(stream.encode(picture))
            count, last_tick = count + 1, tick
        container.mux(stream.encode(None))
    return count
