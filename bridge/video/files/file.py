"""A video file or a picture as a source: looped, at its own rate, with its own times. `file:PATH`.

Source times keep rising when the file loops. Pictures that the caller did not read in time are decoded and skipped.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import av
import av.container

from bridge.video.base import DEFAULT_FPS, Options, Source, SourceInfo
from bridge.video.errors import foreign_errors, reason
from bridge.video.files.decode import Converter, Failure, open_container
from engine.errors import TransportError
from engine.frame import Frame

_LATE_S = 2.0
"""If playback is further behind than this (the machine was asleep), it continues from where it is and does not skip."""


class FileSource(Source):
    """A file in an endless loop."""

    def __init__(self, path: str) -> None:
        super().__init__(f"file:{path}")
        self._path = Path(path)
        self._container: av.container.InputContainer | None = None
        self._converter = Converter()
        self._info = SourceInfo(self.uri, self._path.name)
        self._seq = 0
        self._problem = ""

    def open(self) -> None:
        """Open the file and decode its first picture."""
        if self._container is not None:
            return
        path = existing_file(self._path)
        # `file:` keeps FFmpeg from taking a name such as `concat:a` for one of its protocols; the list of protocols
        # keeps a playlist from opening addresses on the network. The others are for JPEG, which FFmpeg takes for a
        # series of files: its name is no pattern, and it is given again and again, for it cannot be rewound.
        options = {"protocol_whitelist": "file", "pattern_type": "none", "loop": "1"}
        self._container = open_container(f"file:{path}", f"The file {path.name!r}", options=options)
        stream = self._container.streams.video[0]
        self._fps = stream.average_rate or stream.base_rate or DEFAULT_FPS
        self._pictures: Iterator[av.VideoFrame] = self._container.decode(video=0)
        self._offset_ns = 0  # source time at which this pass through the file began
        self._first_ns: int | None = None  # the file's own time of its first picture
        self._last_ns = 0
        self._seq, self._problem = 0, ""
        self._next = self._decode()
        if self._next is None:
            self.close()
            raise TransportError(
                f"The file {self._path.name!r} has no picture that can be decoded.", "Choose another one."
            )
        picture = self._next[1]
        size = (picture.width, picture.height)
        upright = size[::-1] if round(picture.rotation / 90) % 2 else size
        self._info = SourceInfo(self.uri, self._path.name, *upright, float(self._fps))
        self._start_ns = time.monotonic_ns()

    def read(self, timeout_s: float) -> Frame | None:
        """The picture that is due."""
        if self._container is None:
            raise TransportError(f"{self.uri} is not open.")
        if self._next is None:
            self._next = self._decode()
            if self._next is None:
                time.sleep(timeout_s)
                return None
        wait_s = (self._start_ns + self._next[0] - time.monotonic_ns()) / 1e9
        if wait_s > 0:
            time.sleep(min(wait_s, max(0.0, timeout_s)))
            if wait_s > timeout_s:
                return None
        elif wait_s < -_LATE_S:
            self._start_ns += int(-wait_s * 1e9)
        due, self._next = self._next, self._decode()
        while self._next is not None and self._start_ns + self._next[0] <= time.monotonic_ns():
            due, self._next = self._next, self._decode()
            self.skipped += 1
        with foreign_errors(f"A picture of the file {self._path.name!r} cannot be converted"):
            pixels, kind = self._converter.array(due[1])
        frame = Frame(pixels, kind, due[0], time.monotonic_ns(), self._seq)
        self._seq += 1
        return frame

    def close(self) -> None:
        """Close the file."""
        container, self._container = self._container, None
        if container is not None:
            self._next = None
            self._pictures = iter(())
            container.close()

    @property
    def info(self) -> SourceInfo:
        """File name, size and rate."""
        return self._info

    @property
    def connected(self) -> bool:
        """While open and readable."""
        return self._container is not None and not self._problem

    @property
    def problem(self) -> str:
        """Why the rest of the file cannot be read."""
        return self._problem

    def _decode(self) -> tuple[int, av.VideoFrame] | None:
        """The next picture and its time since the start; None if nothing in the whole file can be decoded."""
        assert self._container is not None
        for _ in range(2):  # the rest of this pass, then the file from its beginning
            try:
                picture = next(self._pictures, None)
                if picture is not None:
                    self._problem = ""
                    return self._timed(picture)
                why = "it has ended"
            except Failure as error:
                why = reason(error)
            try:
                self._container.seek(0)
                self._pictures = self._container.decode(video=0)
            except Failure as error:
                why = reason(error)
            self._offset_ns = self._last_ns + int(1e9 / self._fps)
            self._first_ns = None
        self._problem = f"The file {self._path.name!r} cannot be read any further: {why}."
        return None

    def _timed(self, picture: av.VideoFrame) -> tuple[int, av.VideoFrame]:
        if picture.pts is None or picture.time_base is None:
            at = self._last_ns + int(1e9 / self._fps) if self._first_ns is not None else self._offset_ns
            self._first_ns = self._first_ns or 0
        else:
            own = int(picture.pts * picture.time_base * 1_000_000_000)
            if self._first_ns is None:
                self._first_ns = own
            at = self._offset_ns + own - self._first_ns
        self._last_ns = at
        return at, picture


def existing_file(path: Path) -> Path:
    """The path of a file, with `~` replaced by the user's folder.

    Raises:
        TransportError: there is no such file, it cannot be reached, or it is a folder, a pipe or a device.
    """
    path = Path(os.path.expanduser(path))  # unlike `Path.expanduser`, it keeps the name of a user that does not exist
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise TransportError(f"There is no file {str(path)!r}.", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise TransportError(f"The file {str(path)!r} cannot be opened: {reason(error)}.", "Check the path.") from error
    if stat.S_ISDIR(mode):
        raise TransportError(f"{str(path)!r} is a folder.", "Choose a file in it.")
    if not stat.S_ISREG(mode):
        raise TransportError(f"{str(path)!r} is a pipe or a device, not a file.", "Choose a video file.")
    return path


def source(name: str, options: Options) -> FileSource:
    """A file by its path."""
    return FileSource(name)
