"""Records the output, and the input if wished, to files, from processes of their own.

Each file has a process that takes frames from a ring which drops the oldest: when the disk or the encoder is slow
the recording loses frames, never the show. Files are fragmented MP4 (H.264), written out once a second, so that a
file is playable up to its last second whatever ends its process. Knows no control and no socket: `Recorder.want`
says what shall be recorded, two callbacks say what is.
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
from pathlib import Path
from typing import Any, cast

import numpy as np

from bridge.ipc.frame_ring import FrameRing, RingReader, RingWriter
from bridge.service import Service
from engine.errors import TidecastError, TransportError
from engine.frame import Frame

log = logging.getLogger(__name__)

KINDS = ("output", "input")
RING_DEPTH = 24
LEAST_FREE_BYTES = 200 * 1024 * 1024
"""A recording is not begun with less room than this on the disk."""

MOST_FINISHING = 2
"""Ended recordings of one kind that may still be writing when another begins; who asks for more has to wait. A switch
that is turned on and off without end must not fill the machine with processes."""

FINISH_TIMEOUT_S = 10.0
NICENESS = 10
WAIT_S = 0.2
"""How often a recording's process looks whether it shall end, when no frame comes."""

TICKS = 90_000
"""Ticks per second of the file's time base."""

Status = Callable[[str], None]
"""Called with the files that are being written, separated by ", "; empty when there is none."""

Trouble = Callable[[str], None]
"""Called with a sentence about a recording that failed or lost frames."""


@dataclass(slots=True)
class _Take:
    """One file that is being written."""

    kind: str
    path: Path
    ring: FrameRing
    writer: RingWriter
    process: Any
    pipe: Connection

    def end(self) -> None:
        """Let the process write what waits and finish the file."""
        self.writer.close()
        with contextlib.suppress(OSError):  # it died
            self.pipe.send("end")


class Recorder:
    """Starts and ends recordings. Every method is thread-safe and none waits for a disk, except `close`.

    Args:
        width, height: size of every offered frame, pixels, both even.
        folder: where files are written; made when needed.
        status, trouble: told what is recorded and what went wrong; called on the recorder's own thread.
        fps: frames per second that are expected (sets how often the file is written out; any rate is recorded).
    """

    def __init__(
        self, width: int, height: int, folder: Path, *, status: Status, trouble: Trouble, fps: float = 30.0
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"a recording needs even sizes, got {width}x{height}")
        self._size = (width, height)
        self._folder = folder
        self._fps = fps
        self._status = status
        self._trouble = trouble
        self._takes: dict[str, _Take] = {}
        self._finishing: list[_Take] = []
        self._wanted: frozenset[str] = frozenset()
        self._change = threading.Condition()
        self._service = Service("record", self._run, lambda _, text: trouble(text), self._notice)
        self._service.start()

    def want(self, record: bool, record_input: bool) -> None:
        """Say what shall be recorded from now on: the output, and with it the input. Returns at once."""
        with self._change:
            self._wanted = frozenset(KINDS if record_input else KINDS[:1]) if record else frozenset()
            self._change.notify()

    def offer(self, which: str, frame: Frame) -> None:
        """Hand over a frame; costs one copy while that kind is recorded, nothing otherwise. Never waits.

        Each kind belongs to one thread.

        Args:
            which: "output" or "input".
            frame: of the size given at the start; others are left out.
        """
        take = self._takes.get(which)
        if take is None or (frame.width, frame.height) != self._size:
            return
        with contextlib.suppress(ValueError):  # ended at this very moment
            take.writer.put(Frame(frame.rgb(), pts_ns=frame.pts_ns, captured_ns=frame.captured_ns, seq=frame.seq))

    @property
    def pids(self) -> dict[str, int]:
        """Process id by kind of what is being recorded."""
        return {kind: take.process.pid for kind, take in self._takes.items()}

    def close(self) -> None:
        """Finish every file and end. Waits for at most a few seconds."""
        with self._change:
            self._wanted = frozenset()
        self._service.stop(FINISH_TIMEOUT_S + 5.0)

    def _notice(self) -> None:
        with self._change:
            self._change.notify()

    def _run(self) -> None:
        """The recorder's thread: bring what is recorded in line with what is wanted, notice dead processes."""
        while True:
            with self._change:
                self._change.wait_for(self._out_of_line, 0.25 if self._takes or self._finishing else None)
                closing = self._service.stopping.is_set()
                ended, begun = self._unwanted(), self._missing()
            for kind in ended:
                take = self._takes.pop(kind)
                take.end()
                self._finishing.append(take)
                self._tell()
            for kind in begun:
                self._begin(kind)
            for kind, take in list(self._takes.items()):
                if not take.process.is_alive():
                    del self._takes[kind]
                    take.end()
                    self._finish(take)
                    self._give_up(kind)
            for take in [t for t in self._finishing if closing or not t.process.is_alive()]:
                self._finishing.remove(take)
                self._finish(take)
            if closing:
                return

    def _out_of_line(self) -> bool:
        return self._service.stopping.is_set() or bool(self._unwanted() or self._missing())

    def _unwanted(self) -> list[str]:
        """Kinds that are recorded and shall not be."""
        return [kind for kind in self._takes if kind not in self._wanted]

    def _missing(self) -> list[str]:
        """Kinds that shall be recorded, are not, and may begin."""
        finishing = [take.kind for take in self._finishing]
        return [k for k in self._wanted if k not in self._takes and finishing.count(k) < MOST_FINISHING]

    def _begin(self, kind: str) -> None:
        try:
            path = self._new_path(kind)
            ring = FrameRing(*self._size, depth=RING_DEPTH, metadata_bytes=0)
        except (OSError, TidecastError) as error:
            self._trouble(f"The {kind} is not recorded: {error}")
            self._give_up(kind)
            return
        context = multiprocessing.get_context("spawn")
        ours, theirs = cast("tuple[Connection, Connection]", context.Pipe())  # Windows has another class of them
        reader = ring.reader()
        process = context.Process(
            target=write, args=(reader, path, self._fps, theirs), name="tidecast-record", daemon=True
        )
        try:
            process.start()
        except OSError as error:  # no process, memory or file handle left
            self._trouble(f"The {kind} is not recorded: its process could not be started: {error}.")
            self._give_up(kind)
            ours.close()
            ring.close()
            return
        finally:
            theirs.close()
            reader.close()
        self._takes[kind] = _Take(kind, path, ring, ring.writer(), process, ours)
        self._tell()

    def _finish(self, take: _Take) -> None:
        """Wait for a process that was told to end, and report how it went."""
        take.process.join(FINISH_TIMEOUT_S)
        if take.process.is_alive():
            take.process.kill()
            take.process.join()
        result = "its process died; the file is playable up to its last second."
        with contextlib.suppress(EOFError, OSError):
            if take.pipe.poll():
                result = take.pipe.recv()
        if result:
            self._trouble(f"Recording {take.path}: {result}")
        else:
            log.info("recorded %s", take.path)
        take.pipe.close()
        take.ring.close()
        take.process.close()

    def _give_up(self, kind: str) -> None:
        """Do not try again what failed, until it is asked for again; without its output a recording ends."""
        with self._change:
            self._wanted = frozenset() if kind == "output" else self._wanted - {kind}
        self._tell()

    def _tell(self) -> None:
        self._status(", ".join(str(take.path) for take in self._takes.values()))

    def _new_path(self, kind: str) -> Path:
        """A file name that is not taken, in the folder.

        Raises:
            TransportError: if there is too little room on the disk.
            OSError: if the folder cannot be made.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < LEAST_FREE_BYTES:
            raise TransportError(
                f"only {free // 2**20} MiB are free in {self._folder}.", "Make room, or choose another folder."
            )
        stem = time.strftime("Tidecast %Y-%m-%d %H-%M-%S") + (" input" if kind == "input" else "")
        names = (f"{stem}{f' {n}' if n else ''}.mp4" for n in range(1000))
        return next(path for path in (self._folder / name for name in names) if not path.exists())


def write(reader: RingReader, path: Path, fps: float, pipe: Connection) -> None:
    """Main function of a recording's process: frames from the ring into the file, until the owner says so or is gone.

    Sends one sentence through `pipe` at the end: empty when all went well.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C goes to the whole group; the owner ends us in order
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    from av.error import FFmpegError

    try:
        count = _encode(_frames(reader, pipe), reader.size, path, fps)
    except (FFmpegError, OSError, ValueError) as error:
        said = f"it ended early: {error}. Check the disk's free space and rights."
    else:
        lost = reader.dropped
        said = f"{lost} of {count + lost} frames are missing, the disk or the encoder was too slow." if lost else ""
    with contextlib.suppress(OSError):  # the owner is gone
        pipe.send(said)


def _frames(reader: RingReader, pipe: Connection) -> Iterator[tuple[np.ndarray, int]]:
    """Pixels of every frame, and when it was offered (`time.monotonic_ns()`), to the last that waits at the end."""
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
