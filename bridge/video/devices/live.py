"""A device that PyAV reads in real time: what camera and screen have in common.

A thread decodes and keeps the newest picture; when the device is lost, opening it is tried again every second.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass, field

from av.container import InputContainer

from bridge.service import Service
from bridge.video.base import Source, SourceInfo
from bridge.video.errors import reason
from bridge.video.files.decode import Converter, Failure, open_container
from engine.errors import TransportError
from engine.frame import Frame

RETRY_S = 1.0
"""Pause before a lost device is opened again, in s."""

_TIMEOUT_S = 3.0  # longest wait for the device's answer


@dataclass(frozen=True, slots=True)
class Device:
    """How PyAV opens a device: its driver, the driver's name for it, and the driver's options."""

    driver: str
    url: str
    options: dict[str, str] = field(default_factory=dict)


class LiveSource(Source):
    """The newest picture of a device.

    Args:
        uri: the address that the user gave.
        title: name for users.
        device: how to open it.
    """

    def __init__(self, uri: str, title: str, device: Device) -> None:
        super().__init__(uri)
        self._title = title
        self._device = device
        self._info = SourceInfo(uri, title)
        self._arrival = threading.Condition()
        self._newest: Frame | None = None
        self._container: InputContainer | None = None
        self._service: Service | None = None
        self._connected = False
        self._problem = ""
        self._seq = 0

    def open(self) -> None:
        """Open the device; raises if that fails. If the device is lost later, opening is tried again automatically."""
        if self._service is not None:
            return
        self._container = self._open_device()
        self._newest, self._seq = None, 0
        self._service = Service(f"capture {self._title}", self._run, self._note)
        self._service.start()

    def read(self, timeout_s: float) -> Frame | None:
        """The newest picture that has not been returned yet."""
        if self._service is None:
            raise TransportError(f"{self.uri} is not open.")
        with self._arrival:
            self._arrival.wait_for(lambda: self._newest is not None, timeout_s)
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
        """Whether pictures are being received."""
        return self._connected

    @property
    def problem(self) -> str:
        """Why no pictures are received."""
        return self._problem

    def _open_device(self) -> InputContainer:
        device = self._device
        return open_container(device.url, self._title, device.driver, device.options, _TIMEOUT_S)

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

    def _receive(self, container: InputContainer, stopping: threading.Event) -> None:
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
            with self._arrival:
                self.skipped += self._newest is not None
                self._newest = Frame(pixels, kind, pts, captured)
                self._arrival.notify()
            self._info = SourceInfo(self.uri, self._title, pixels.shape[1], pixels.shape[0], rate)
            self._connected, self._problem = True, ""
