"""Addresses of inputs that can do harm, and what must happen when somebody chooses one, by OSC, page or snapshot.

Whatever the address: the picture goes on, the controls answer, and the next good address works.
"""

from __future__ import annotations

import enum
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from bridge.video.synthetic.pattern import bars


class Outcome(enum.Enum):
    """What must happen."""

    REFUSED = "refused"
    """The control keeps its value, and the sender gets an error."""

    REPORTED = "reported"
    """The control takes the value, the error is reported, and the old input is shown."""

    SHOWN = "shown"
    """It is odd but good: it is shown."""

    EITHER = "either"
    """It may be shown or reported."""


@dataclass(frozen=True)
class Poison:
    """One address.

    Attributes:
        name: for the test's name.
        outcome: what must happen.
        words: part of the error.
        make: writes what it needs into an empty folder and returns the address.
        runs: whether it can be tried on this machine.
    """

    name: str
    outcome: Outcome
    words: str
    make: Callable[[Path], str]
    runs: bool = True


def _fixed(address: str) -> Callable[[Path], str]:
    return lambda folder: address


def _file(name: str, write: Callable[[Path], object]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        write(folder / name)
        return f"file:{folder / name}"

    return make


def _clip(path: Path, sizes: tuple[tuple[int, int], ...] = ((64, 48),), frames: int = 40, **options: str) -> None:
    """Video of H.264; several sizes follow one another in a raw stream."""
    data = b""
    for width, height in sizes:
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(frames):
                picture = av.VideoFrame.from_ndarray(bars(number, width, height, Fraction(30)), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        data += path.read_bytes()
    path.write_bytes(data)


def _cut(path: Path, share: float, **options: str) -> None:
    _clip(path, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _png(path: Path, width: int, height: int, shown_width: int = 0, shown_height: int = 0) -> None:
    """A grey picture whose header may state another size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", shown_width or width, shown_height or height, 8, 0, 0, 0, 0)
    lines = zlib.compress(np.zeros((height, width + 1), np.uint8).tobytes())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b""))


def _exif(path: Path) -> None:
    """A JPEG whose EXIF data claim two thousand million orientations."""
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(bars(0, 64, 48, Fraction(1)), format="rgb24")))
        container.mux(stream.encode())
    entries = struct.pack(">HHHIHH", 1, 0x0112, 3, 0x7FFFFFFF, 6, 0) + struct.pack(">I", 8)
    exif = b"Exif\0\0" + b"MM\0*" + struct.pack(">I", 8) + entries
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])


def _locked(folder: Path) -> str:
    inner = folder / "locked"
    inner.mkdir()
    _clip(inner / "clip.mp4")
    inner.chmod(0)
    return f"file:{inner / 'clip.mp4'}"


def _loop(folder: Path) -> str:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return f"file:{folder / 'a'}"


def _folder(folder: Path) -> str:
    return f"file:{folder}"


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")


POSIX = os.name == "posix"

POISONED: tuple[Poison, ...] = (
    Poison("an index of 5000 digits", Outcome.REFUSED, "no input number", _fixed("5" * 5000)),
    Poison("an address of a million characters", Outcome.REFUSED, "1024 at most", _fixed("file:" + "/x" * 500_000)),
    Poison("a name of 256 bytes", Outcome.REFUSED, "255 at most", _fixed("file:/tmp/" + "x" * 256)),
    Poison("a NUL", Outcome.REFUSED, "control characters", _fixed("file:/tmp/a\0b.mp4")),
    Poison("no transport", Outcome.REFUSED, "names no video transport", _fixed("studio")),
    Poison("a stream on the network", Outcome.REFUSED, "names no video transport", _fixed("rtsp://10.0.0.1/x")),
    Poison("a device that is no camera", Outcome.REFUSED, "not the device file", _fixed("camera:/dev/watchdog")),
    Poison("no such test picture", Outcome.REFUSED, "no test picture", _fixed("pattern:nothing")),
    Poison("an index that nobody has", Outcome.REPORTED, "no input number 9999", _fixed("9999")),
    Poison("the folder of nobody", Outcome.REPORTED, "There is no file", _fixed("file:~no-such-user/x.mp4")),
    Poison("a file that is not there", Outcome.REPORTED, "There is no file", _fixed("file:/no/such/file.mp4")),
    Poison("a file below a file", Outcome.REPORTED, "There is no file", _fixed(f"file:{__file__}/x.mp4")),
    Poison("a protocol of FFmpeg", Outcome.REPORTED, "There is no file", _fixed("file:concat:/etc/hostname")),
    Poison("an address on the web", Outcome.REPORTED, "There is no file", _fixed("file:http://127.0.0.1:9/x.mp4")),
    Poison("a share on the network", Outcome.REPORTED, "There is no file", _fixed(r"file:\\127.0.0.1\x\y.mp4"), POSIX),
    Poison("a file without permission", Outcome.REPORTED, "ermission denied", _locked, POSIX and os.geteuid() != 0),
    Poison("a circle of links", Outcome.REPORTED, "cannot be opened", _loop, POSIX),
    Poison("a folder", Outcome.REPORTED, "is a folder", _folder),
    Poison("a pipe", Outcome.REPORTED, "a pipe or a device", _file("pipe", lambda path: os.mkfifo(path)), POSIX),
    Poison("endless zeros", Outcome.REPORTED, "a pipe or a device", _fixed("file:/dev/zero"), POSIX),
    Poison("an empty file", Outcome.REPORTED, "cannot be opened", _file("empty.mp4", lambda p: p.write_bytes(b""))),
    Poison(
        "a text", Outcome.REPORTED, "cannot be opened", _file("text.mp4", lambda p: p.write_bytes(b"no video" * 99))
    ),
    Poison("zeros", Outcome.REPORTED, "cannot be opened", _file("zero.mp4", lambda p: p.write_bytes(bytes(1 << 20)))),
    Poison("a playlist of the web", Outcome.REPORTED, "playlist", _file("playlist.m3u8", _playlist)),
    Poison("a video without its end", Outcome.REPORTED, "cut.mp4", _file("cut.mp4", lambda p: _cut(p, 0.9))),
    Poison(
        "a video that breaks off",
        Outcome.SHOWN,
        "",
        _file("cut.mp4", lambda p: _cut(p, 0.6, movflags="frag_keyframe+empty_moov", g="5")),
    ),
    Poison("a picture of one point", Outcome.SHOWN, "", _file("point.png", lambda p: _png(p, 1, 1))),
    Poison("a picture of one line", Outcome.EITHER, "line.png", _file("line.png", lambda p: _png(p, 16384, 1))),
    Poison("a picture of one column", Outcome.EITHER, "column.png", _file("column.png", lambda p: _png(p, 1, 16384))),
    Poison(
        "a picture that states 16384x16384",
        Outcome.REPORTED,
        "big.png",
        _file("big.png", lambda p: _png(p, 64, 48, 16384, 16384)),
    ),
    Poison(
        "a picture that states 100 gigapixels",
        Outcome.REPORTED,
        "giga.png",
        _file("giga.png", lambda p: _png(p, 64, 48, 400_000, 250_000)),
    ),
    Poison("an EXIF bomb", Outcome.EITHER, "exif.jpg", _file("exif.jpg", _exif)),
    Poison("a video of two points", Outcome.SHOWN, "", _file("tiny.mp4", lambda p: _clip(p, ((2, 2),)))),
    Poison(
        "a video that changes its size",
        Outcome.SHOWN,
        "",
        _file("sizes.h264", lambda p: _clip(p, ((64, 48), (640, 360), (16, 16)), 10)),
    ),
    Poison("a camera that is not there", Outcome.REPORTED, "no such camera", _fixed("camera:no such camera")),
    Poison("a transport of another system", Outcome.REPORTED, "Spout", _fixed("spout:x"), sys.platform != "win32"),
)
"""Addresses that need no transport that hangs or raises; `tests.support.bad_transport` has those."""
