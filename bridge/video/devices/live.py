"""A device that PyAV reads in real time: what camera and screen have in common.

A thread decodes and keeps the newest picture; when the device is lost it is opened again every second. Knows nothing
of which device it is.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from bridge.service import Service
from bridge.video.base import Source, SourceInfo
from bridge.video.files.decode import Converter, Failure, open_container, reason
from engine.errors import TransportError
from engine.frame import Frame

RETRY_S = 1.0
"""Pause before a lost device is opened again."""

_ANSWER_S = 3.0


@dataclass(frozen=True, slots=True)
class Device:
    """How PyAV opens a device: its driver, the driver's name for it, and the driver's options."""

    driver: str
    url: str
    wishes: dict[str, str] = field(default_factory=dict)


class LiveSource(Source):
    """The newest picture of a device.

    Args:
        uri: what the user wrote.
        title: name for people.
        device: how to open it.
    """

    def __init__(self, uri: str, title: str, device: Device) -> None:
        super().__init__(uri)
        self._title = title
        self._device = device
        self._info = SourceInfo(uri, title)
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._container: Any = None
        self._service: Service | None = None
        self._connected = False
        self._problem = ""
        self._seq = 0

    def open(self) -> None:
        """Open the device; raises when that fails now, tries again by itself when it fails later."""
        if self._service is not None:
            return
        self._container = self._open_device()
        self._newest, self._seq = None, 0
        self._service = Service(f"capture {self._title}", self._run, self._note)
        self._service.start()

    def read(self, timeout_s: float) -> Frame | None:
        """The newest picture that was not given yet."""
        if self._service is None:
            raise TransportError(f"{self.uri} is not open.")
        with self._news:
            self._news.wait_for(lambda: self._newest is not None, timeout_s)
            frame, self._newest = self._newest, None
        if frame is None:
            return None
        self._seq += 1
        return dataclasses.replace(frame, seq=self._seq - 1)

    def close(self) -> None:
        """Stop and close the device."""
        if self._service is not None:
            self._service.stop()
            self._service = None
            self._connected = False

    @property
    def info(self) -> SourceInfo:
        """Name, size and rate."""
        return self._info

    @property
    def connected(self) -> bool:
        """Whether pictures come."""
        return self._connected

    @property
    def problem(self) -> str:
        """Why no pictures come."""
        return self._problem

    def _open_device(self) -> Any:
        device = self._device
        return open_container(device.url, self._title, device.driver, device.wishes, _ANSWER_S)

    def _note(self, topic: str, text: str) -> None:
        self._problem = f"{self._title} failed: {text}"

    def _run(self) -> None:
        service = self._service
        assert service is not None
        while True:
            try:
                if self._container is None:
                    self._container = self._open_device()
                self._receive(self._container, service.stopping)
                self._problem = f"{self._title} has ended."
            except TransportError as error:
                self._problem = str(error)
            except Failure as error:
                self._problem = f"{self._title} was lost: {reason(error)}."
            finally:
                self._connected = False
                container, self._container = self._container, None
                if container is not None:
                    container.close()
            if service.stopping.wait(RETRY_S):
                return

    def _receive(self, container: Any, stopping: threading.Event) -> None:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.base_rate or 0)
        converter = Converter()
        for picture in container.decode(stream):
            if stopping.is_set():
                return
            captured = time.monotonic_ns()
            pixels, kind = converter.array(picture)
            pts = captured
            if picture.pts is not None and picture.time_base is not None:
                pts = int(picture.pts * picture.time_base * 1_000_000_000)
            with self._news:
                self.skipped += self._newest is not None
                self._newest = Frame(pixels, kind, pts, captured)
                self._news.notify()
            self._info = SourceInfo(self.uri, self._title, pixels.shape[1], pixels.shape[0], rate)
            self._connected, self._problem = True, ""


def wishes(width: int, height: int, fps: float | None) -> dict[str, str]:
    """The options `video_size` and `framerate` that all capture drivers know."""
    made = {}
    if width and height:
        made["video_size"] = f"{width}x{height}"
    if fps:
        made["framerate"] = f"{fps:g}"
    return made
