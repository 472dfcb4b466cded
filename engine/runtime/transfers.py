"""Copies between host and device that go on beside the work: the next chunk's frames arrive and the last one's leave
while the device computes.

A lane takes a tensor to the other side and gives a `Parcel` back at once; whoever needs the copy asks the parcel. On a
GPU every lane is a stream of its own, its host memory is page-locked, and nothing but `here` of a copy to the host
makes the host wait. Elsewhere a copy is made at once; on a CPU both sides are one. Must not know frames or chunks.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Parcel(Protocol):
    """A tensor on its way. Those of one lane arrive in the order in which they were sent."""

    @property
    def arrived(self) -> bool:
        """Whether the copy is made; never waits."""
        ...

    def here(self) -> Tensor:
        """The copy. On the device, work that is enqueued from now on waits for it; on the host, the host does."""
        ...


class Lane(Protocol):
    """One direction."""

    def send(self, source: Tensor) -> Parcel:
        """Copy a tensor to the other side after the work so far. Until it is `here` nobody may write to it."""
        ...


class Arrived:
    """A parcel that was not long on its way."""

    arrived = True

    def __init__(self, copy: Tensor) -> None:
        self._copy = copy

    def here(self) -> Tensor:
        """See `Parcel`."""
        return self._copy


class PlainLane:
    """Copies at once; where both sides are one there is nothing to copy."""

    def __init__(self, target: torch.device) -> None:
        self._target = target

    def send(self, source: Tensor) -> Parcel:
        """See `Lane`."""
        return Arrived(source.to(self._target))


class CudaParcel:
    """What a `CudaLane` carries."""

    def __init__(self, copy: Tensor, done: torch.cuda.Event) -> None:
        self._copy, self._done = copy, done

    @property
    def arrived(self) -> bool:
        """See `Parcel`."""
        return self._done.query()

    def here(self) -> Tensor:
        """See `Parcel`."""
        if self._copy.is_cuda:
            work = torch.cuda.current_stream(self._copy.device)
            work.wait_event(self._done)
            self._copy.record_stream(work)  # its memory was asked for by the lane's stream
        else:
            self._done.synchronize()
        return self._copy


class CudaLane:
    """To (`up`) or from a GPU, on a stream of its own."""

    def __init__(self, device: torch.device, *, up: bool) -> None:
        self._device, self._up = device, up
        self._stream = torch.cuda.Stream(device)

    def send(self, source: Tensor) -> Parcel:
        """See `Lane`. What goes up lies in page-locked memory (`staging`)."""
        if not self._up:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            if self._up:
                copy = torch.empty_like(source, device=self._device)
            else:
                copy = torch.empty_like(source, device="cpu", pin_memory=True)
                source.record_stream(self._stream)  # is not given to others before the copy is made
            copy.copy_(source, non_blocking=True)  # torch keeps page-locked memory until its copies are done
            return CudaParcel(copy, self._stream.record_event())


def lanes(device: torch.device) -> tuple[Lane, Lane]:
    """To the device and back to the host."""
    if device.type == "cuda":
        return CudaLane(device, up=True), CudaLane(device, up=False)
    return PlainLane(device), PlainLane(torch.device("cpu"))


def staging(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Host memory, uint8, for what goes up to the device."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
