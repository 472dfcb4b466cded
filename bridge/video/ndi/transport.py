"""NDI input and output, through ndi-python.

Only this module uses the binding's handles and frames, and it keeps the binding's rules: a handle is destroyed once and
never used afterwards; every received frame is freed after its text was read; only contiguous four-channel byte arrays
are sent, each in its own memory, which is kept until NDI has finished with it; the receive queue is drained, so that
only the newest frame is returned.

`ndi:NAME` takes the full name `MACHINE (SOURCE)`, the source's name alone, a wildcard or a part of the full name;
`ndi:` alone takes any source that is not an output of this process.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from bridge.video.alpha import PREMULTIPLIED, STRAIGHT
from bridge.video.base import DEFAULT_FPS, DEFAULT_NAME, Guide, Options, Sink, Source, SourceInfo
from bridge.video.ndi.connect import connect, destroy
from bridge.video.ndi.guides import steps
from bridge.video.ndi.metadata import from_xml, to_xml
from bridge.video.ndi.runtime import (
    ROUND_S,
    Finder,
    add_own_output,
    close_at_exit,
    is_own_output,
    library,
    remove_own_output,
)
from bridge.video.pixels import FourChannelConverter, UyvyConverter
from engine.errors import NameTakenError, TransportError
from engine.frame import Frame, PixelFormat

log = logging.getLogger(__name__)

SILENT_S = 2.0
"""A source that was connected but gives no frame for this long counts as lost and is searched for again."""

CLOSE_S = 5.0
"""Longest wait for a read or a send in progress when the handle is to be destroyed, in s."""

_GONE_S = 0.3  # without a frame for this long, it is checked whether the connection is still there
_SLICE_S = 0.1  # longest single wait for a frame inside the library


@dataclass(frozen=True, slots=True)
class _Received:
    """A copy of one of NDI's frames.

    Attributes:
        pixels: UYVY [height, width, 2] or, with alpha, [height, width, 4].
        bgra: whether the four channels are BGRA, as NDI for Windows gives them although RGBA was asked for; else RGBA.
    """

    pixels: np.ndarray
    bgra: bool
    text: str
    pts_ns: int
    captured_ns: int


class NdiSource(Source):
    """One NDI source, found by name, and found again after it was lost.

    Frames are RGB, or RGBA (on Windows: BGRA) if the source has alpha. `pts_ns` is the sender's time (UTC) of the
    frame. NDI is asked for UYVY, to which it decodes: its own conversion to RGB takes three times as long as
    `UyvyConverter`.
    """

    def __init__(self, pattern: str, options: Options) -> None:
        super().__init__(f"ndi:{pattern}")
        self._pattern = pattern
        self._options = options
        self._handle: Any = None
        self._finder: Finder  # made when opened
        self._name = ""
        self._converter = UyvyConverter()
        self._size = (0, 0)
        self._fps = 0.0
        self._seq = 0
        self._last_frame = 0.0
        self._connected = False
        self._lock = threading.Lock()  # `close` waits for a read in progress: a destroyed handle must not be used
        self._closing = False  # prevents new reads meanwhile: a reader in a loop would hardly ever release the lock

    def open(self) -> None:
        """Start to search for the source."""
        with self._lock:
            self._closing = False
            if self._handle is not None:
                return
            ndi = library()
            settings = ndi.RecvCreateV3()
            settings.color_format = ndi.RECV_COLOR_FORMAT_UYVY_RGBA
            settings.bandwidth = ndi.RECV_BANDWIDTH_HIGHEST
            settings.allow_video_fields = False
            settings.ndi_recv_name = "Tidecast"
            handle = ndi.recv_create_v3(settings)
            if handle is None:
                raise TransportError("NDI could not make a receiver.", "Close other NDI programs and try again.")
            on_air = ndi.Tally()
            on_air.on_program = True
            ndi.recv_set_tally(handle, on_air)  # switches on the sender's tally light
            self._handle, self._seq, self._name, self._connected = handle, 0, "", False
            self._finder = Finder(self._options.extra_ips)
            self._finder.start()
            close_at_exit(self)

    def read(self, timeout_s: float) -> Frame | None:
        """The newest frame; searches for the source while it is missing."""
        deadline = time.monotonic() + timeout_s
        if self._closing:
            raise TransportError(f"{self.uri} is not open.")
        with self._lock:
            if self._handle is None:
                raise TransportError(f"{self.uri} is not open.")
            while True:
                left = max(0.0, deadline - time.monotonic())
                if self._finder.searching:
                    # A lost connection may also come back by itself, so frames are awaited during the search.
                    found = self._finder.wait(self._pattern, 0.0 if self._name else left, self._name)
                    if found is not None:
                        self._connect(*found)
                if self._name:
                    frame = self._capture(max(0.0, deadline - time.monotonic()))
                    if frame is not None:
                        return frame
                if time.monotonic() >= deadline:
                    return None

    def close(self) -> None:
        """Disconnect and stop searching. A read that hangs keeps the handle: the program's end must not wait for it."""
        self._closing = True
        if not self._lock.acquire(timeout=CLOSE_S):
            log.warning("%s hangs in NDI and is left behind", self.uri)
            return
        try:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            self._finder.stop()
            self._connected = False
            destroy(library(), handle)
        finally:
            self._lock.release()

    @property
    def info(self) -> SourceInfo:
        """Full name, size and rate."""
        title = self._name or self._pattern or "any NDI source"
        return SourceInfo(self.uri, title, *self._size, self._fps)

    @property
    def connected(self) -> bool:
        """Whether frames are being received."""
        return self._connected

    @property
    def problem(self) -> str:
        """What the source is waiting for."""
        if self._connected or self._handle is None:
            return ""
        if self._name and not self._finder.searching:
            silent = time.monotonic() - self._last_frame > SILENT_S
            return f"{self._name} is connected but sends no picture." if silent else f"Connecting to {self._name}."
        wanted = f"NDI source {self._pattern!r}" if self._pattern else "any NDI source"
        seen = sorted(self._finder.sources())
        others = [name for name in seen if name != self._name]
        return f"Waiting for {wanted}." + (f" Seen: {', '.join(others)}." if others else "")

    def _connect(self, name: str, url: str) -> None:
        connect(library(), self._handle, name, url)
        self._name = name
        self._last_frame = time.monotonic()
        self._finder.stop()

    def _capture(self, timeout_s: float) -> Frame | None:
        """Wait for a video frame, then take all waiting frames and keep the last one."""
        ndi = library()
        wait_ms = int(min(timeout_s, _SLICE_S) * 1000)
        newest = None
        while True:
            kind, video, _, _ = ndi.recv_capture_v2(self._handle, wait_ms, want_audio=False, want_metadata=False)
            if kind == ndi.FRAME_TYPE_VIDEO:
                self.skipped += newest is not None
                newest = self._copy(ndi, video)
                wait_ms = 0
            elif kind == ndi.FRAME_TYPE_NONE:
                break
            elif kind == ndi.FRAME_TYPE_ERROR:
                time.sleep(min(timeout_s, 0.01))
                break
        now = time.monotonic()
        if newest is None:
            silent = now - self._last_frame
            alive = silent < _GONE_S or (self._name and ndi.recv_get_no_connections(self._handle) > 0)
            if silent > SILENT_S:
                self._connected = False
            if not alive and (self._connected or silent > SILENT_S):
                self._connected = False
                self._finder.start()
                self._last_frame = now
            return None
        self._last_frame, self._connected = now, True
        if self._finder.searching:
            self._finder.stop()
        self._seq += 1
        return self._frame(newest)

    def _frame(self, got: _Received) -> Frame:
        alpha = got.pixels.shape[2] == PixelFormat.RGBA.channels
        pixels = got.pixels if alpha else self._converter.rgb(got.pixels)
        kind = (PixelFormat.BGRA if got.bgra else PixelFormat.RGBA) if alpha else PixelFormat.RGB
        return Frame(pixels, kind, got.pts_ns, got.captured_ns, self._seq - 1, from_xml(got.text))

    def _copy(self, ndi: ModuleType, video: Any) -> _Received:
        """Copy everything out of the frame and free it; its strings are invalid afterwards."""
        captured = time.monotonic_ns()
        try:
            pixels, text = video.data, _text(video)
            bgra = video.FourCC == ndi.FOURCC_VIDEO_TYPE_BGRA
            stamp = video.timestamp if 0 < video.timestamp < ndi.RECV_TIMESTAMP_UNDEFINED else video.timecode
            self._size = (video.xres, video.yres)
            self._fps = video.frame_rate_N / video.frame_rate_D if video.frame_rate_D else 0.0
        finally:
            ndi.recv_free_video_v2(self._handle, video)
        pts = stamp * 100 if 0 < stamp < ndi.RECV_TIMESTAMP_UNDEFINED else captured
        return _Received(pixels, bgra, text, pts, captured)


class NdiSink(Sink):
    """One NDI output with a name of its own.

    Frames are encoded on a thread of NDI while the caller goes on. Each frame carries its metadata as one XML element,
    with `seq` and `captured` (ns since 1970) added. If the frame has an alpha, `alpha` says whether it is straight or
    premultiplied, which NDI itself does not say.
    """

    def __init__(self, name: str, options: Options) -> None:
        super().__init__(f"ndi:{name}")
        self._name = name or DEFAULT_NAME
        self._options = options
        self._handle: Any = None
        self._full_name = ""
        self._converter = FourChannelConverter()
        self._in_flight: list[Any] = []  # NDI may read an array until the second send after it has returned
        self._lock = threading.Lock()

    def open(self) -> None:
        """Announce the output."""
        with self._lock:
            if self._handle is not None:
                return
            ndi = library()
            self._handle = _sender(ndi, self._name)
            if self._handle is None:
                raise NameTakenError(
                    f"Another NDI output on this machine is already called {self._name!r}.",
                    f"Close that program or take another name, for instance {_free_name(ndi, self._name)!r}.",
                )
            self._full_name = _full_name(self._name)
            add_own_output(self._full_name)
            close_at_exit(self)

    def send(self, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        """Send one frame. An odd last row or column is cut off, because NDI's pictures have even sizes."""
        pixels, kind = self._converter.copy(frame)
        height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
        if not height or not width:
            raise TransportError(f"NDI cannot send a picture of {frame.width}x{frame.height}.", "Send at least 2x2.")
        if pixels.shape[:2] != (height, width):
            pixels = pixels[:height, :width].copy()
        ndi = library()
        video = ndi.VideoFrameV2()
        video.data = pixels
        video.FourCC = ndi.FOURCC_VIDEO_TYPE_BGRX if kind is PixelFormat.BGRA else ndi.FOURCC_VIDEO_TYPE_RGBX
        if frame.alpha is not None:
            video.FourCC = ndi.FOURCC_VIDEO_TYPE_RGBA
        rate = self._options.fps or DEFAULT_FPS
        video.frame_rate_N, video.frame_rate_D = rate.numerator, rate.denominator
        video.timecode = time.time_ns() // 100
        since_1970 = time.time_ns() - time.monotonic_ns()
        strings = {"seq": str(frame.seq), "captured": str(frame.captured_ns + since_1970)}
        if frame.alpha is not None:
            strings["alpha"] = PREMULTIPLIED if frame.premultiply else STRAIGHT
        video.metadata = to_xml({**frame.metadata, **(metadata or {}), **strings})
        with self._lock:
            if self._handle is None:
                raise TransportError(f"{self.uri} is not open.")
            self._in_flight = [*self._in_flight[-2:], (video, pixels)]
            ndi.send_send_video_async_v2(self._handle, video)

    def close(self) -> None:
        """Finish the last frame and free the name. A send that hangs keeps the handle, as in `NdiSource.close`."""
        if not self._lock.acquire(timeout=CLOSE_S):
            log.warning("%s hangs in NDI and is left behind", self.uri)
            return
        try:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            library().send_destroy(handle)
            self._in_flight.clear()
            remove_own_output(self._full_name)
        finally:
            self._lock.release()

    @property
    def receivers(self) -> int:
        """Connected receivers."""
        with self._lock:
            return int(library().send_get_no_connections(self._handle, 0)) if self._handle is not None else 0


def _sender(ndi: ModuleType, name: str) -> Any:
    """A new sender, or None if the name is taken."""
    settings = ndi.SendCreate()
    settings.ndi_name = name
    settings.clock_video = settings.clock_audio = False  # the pacer is the clock; NDI's would add a frame of latency
    return ndi.send_create(settings)


def _free_name(ndi: ModuleType, taken: str) -> str:
    for number in range(2, 100):
        name = f"{taken} {number}"
        handle = _sender(ndi, name)
        if handle is not None:
            ndi.send_destroy(handle)
            return name
    return f"{taken} {time.time_ns()}"


def _text(video: Any) -> str:
    """A frame's metadata; empty if it is not valid UTF-8 (it comes from the network)."""
    try:
        return video.metadata or ""
    except UnicodeDecodeError:
        return ""


def _full_name(name: str) -> str:
    """The full name of an output on this machine."""
    return f"{socket.gethostname().split('.')[0].upper()} ({name or DEFAULT_NAME})"


def guides(name: str) -> tuple[Guide, ...]:
    """How to receive an output in other programs, and how to send from them to Tidecast."""
    return steps(_full_name(name))


def require() -> None:
    """Raise a `TransportError` if NDI cannot be used on this machine."""
    library()


def source(name: str, options: Options) -> NdiSource:
    """A source by name, part of a name or wildcard."""
    return NdiSource(name, options)


def sink(name: str, options: Options) -> NdiSink:
    """An output by name."""
    return NdiSink(name, options)


def sources(options: Options, look_s: float = 2 * ROUND_S) -> list[SourceInfo]:
    """The sources seen within `look_s` seconds, without outputs of this process; sizes are not known before opening."""
    finder = Finder(options.extra_ips)
    finder.start()
    time.sleep(look_s)
    seen = finder.sources()
    finder.stop()
    return [SourceInfo(f"ndi:{name}", name) for name in sorted(seen) if not is_own_output(name)]
