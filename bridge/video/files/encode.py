"""What a recording's process does: it encodes the frames of a ring into a file until it is told to end.

Opaque pictures become H.264 in MP4, pictures with an alpha ProRes 4444 in QuickTime, which is the one of PyAV's formats
with alpha that editors and VJ programs read. Both are fragmented and written out once a second, so that a file is
playable up to its last second however its process ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge.ipc.frame_ring import RingReader
from bridge.video.alpha import PREMULTIPLIED, STRAIGHT, premultiplied
from bridge.video.errors import reason
from engine.frame import Frame

NICENESS = 10
WAIT_S = 0.2
"""Interval at which a recording's process checks whether it should end, while no frames come."""

TICKS = 90_000
"""Ticks per second of the file's time base."""

MAX_THREADS = 8
"""Most threads of the encoder with alpha, which needs more than one processor core for large pictures."""

COMMENT = "Tidecast: {} alpha"
"""The comment in a file with alpha: straight or premultiplied. ProRes itself does not say it."""


class Form(NamedTuple):
    """What the pictures of one file have in common.

    `alpha` is empty for opaque pictures, else `STRAIGHT` or `PREMULTIPLIED`. Width and height are in pixels.
    """

    width: int
    height: int
    alpha: str = ""

    @staticmethod
    def of(frame: Frame) -> Form:
        """That of a frame."""
        alpha = "" if frame.alpha is None else PREMULTIPLIED if frame.premultiply else STRAIGHT
        return Form(frame.width, frame.height, alpha)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}" + (f" with {self.alpha} alpha" if self.alpha else "")

    @property
    def suffix(self) -> str:
        """The ending of a file's name."""
        return ".mov" if self.alpha else ".mp4"


def write(reader: RingReader, path: Path, form: Form, fps: float, pipe: Connection) -> None:
    """Main function of a recording's process: writes frames from the ring to the file until told to end.

    It also ends when the parent is gone. At the end it sends one sentence through `pipe`, empty if all went well.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole process group; the parent handles it
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    from av.codec.codec import UnknownCodecError
    from av.error import FFmpegError

    encode = _encode_alpha if form.alpha else _encode
    try:
        count = encode(_frames(reader, pipe), form, path, fps)
    except UnknownCodecError as error:
        result = f"this PyAV has no encoder {error}. Install PyAV with pip"
        result += ", or set output alpha to off to record without it." if form.alpha else "."
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


def _encode(frames: Iterable[tuple[np.ndarray, int]], form: Form, path: Path, fps: float) -> int:
    """Write opaque frames, uint8 [H, W, 3]; returns how many there were.

    Raises:
        FFmpegError, OSError: if the file cannot be written.
        UnknownCodecError: if this PyAV has no H.264 encoder.
    """
    import av

    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
    with av.open(str(path), "w", format="mp4", container_options=fragmented) as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = form.width, form.height
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
        stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "18", "g": str(max(1, round(fps)))}
        stream.thread_count = 2
        count = 0
        for tick, pixels in _timed(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, TICKS)
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode(None))
    return count


def _encode_alpha(frames: Iterable[tuple[np.ndarray, int]], form: Form, path: Path, fps: float) -> int:
    """Write frames with straight alpha, uint8 [H, W, 4], as `form` wants them; returns how many there were.

    Raises:
        FFmpegError, OSError: if the file cannot be written.
        UnknownCodecError: if this PyAV has no ProRes encoder.
    """
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

    fragmented = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000", "flush_packets": "1"}
    to_yuv = VideoReformatter()
    with av.open(str(path), "w", format="mov", container_options=fragmented) as container:
        container.metadata["comment"] = COMMENT.format(form.alpha)
        # FFmpeg's other ProRes encoder, prores_ks, takes three times as long.
        stream: Any = container.add_stream("prores", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = form.width, form.height
        stream.pix_fmt = "yuva444p10le"
        context = stream.codec_context
        context.time_base = stream.time_base = Fraction(1, TICKS)
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        stream.options = {"profile": "4"}  # 4444
        stream.thread_count = min(MAX_THREADS, max(2, (os.cpu_count() or 2) // 2))
        count = 0
        for tick, pixels in _timed(frames):
            if form.alpha == PREMULTIPLIED:
                premultiplied(pixels, into=pixels)
            picture = to_yuv.reformat(
                av.VideoFrame.from_ndarray(pixels, format="rgba"),
                format=stream.pix_fmt,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            picture.pts, picture.time_base = tick, Fraction(1, TICKS)
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode(None))
    return count


def _timed(frames: Iterable[tuple[np.ndarray, int]]) -> Iterator[tuple[int, np.ndarray]]:
    """Every frame with its time in the file, in `TICKS`: that of the show, and always increasing."""
    first_ns, last_tick = 0, -1
    for pixels, offered_ns in frames:
        first_ns = first_ns or offered_ns
        last_tick = max(last_tick + 1, (offered_ns - first_ns) * TICKS // 1_000_000_000)
        yield last_tick, pixels
