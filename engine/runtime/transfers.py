"""Copies between host and device that go on beside the work: the next chunk's frames arrive and the last one's leave
while the device computes.

A transfer takes a tensor to the other side and gives a `PendingCopy` back at once; whoever needs the copy waits for it.
On a GPU every transfer is a CUDA stream of its own, its host memory is page-locked, and the host waits for nothing but
a copy to itself. Elsewhere a copy is made at once; on a CPU both sides are one. Must not know frames or chunks.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class PendingCopy(Protocol):
    """A tensor on its way. Those of one transfer arrive in the order in which they were sent."""

    @property
    def arrived(self) -> bool:
        """Whether the copy is made; never waits."""
        ...

    def wait(self) -> Tensor:
        """The copy. On the device, work that is enqueued from now on waits for it; on the host, the host does."""
        ...


class Transfer(Protocol):
    """One direction."""

    def send(self, source: Tensor) -> PendingCopy:
        """Copy a tensor to the other side after the work so far; not to be written to before `wait`."""
        ...


class FinishedCopy:
    """A copy that was made at once."""

    arrived = True

    def __init__(self, copy: Tensor) -> None:
        self._copy = copy

    def wait(self) -> Tensor:
        """See `PendingCopy`."""
        return self._copy


class PlainTransfer:
    """Copies at once; where both sides are one there is nothing to copy."""

    def __init__(self, target: torch.device) -> None:
        self._target = target

    def send(self, source: Tensor) -> PendingCopy:
        """See `Transfer`."""
        return FinishedCopy(source.to(self._target))


class CudaPendingCopy:
    """What a `CudaTransfer` gives back."""

    def __init__(self, copy: Tensor, done: torch.cuda.Event) -> None:
        self._copy, self._done = copy, done

    @property
    def arrived(self) -> bool:
        """See `PendingCopy`."""
        return self._done.query()

    def wait(self) -> Tensor:
        """See `PendingCopy`."""
        if self._copy.is_cuda:
            work = torch.cuda.current_stream(self._copy.device)
            work.wait_event(self._done)
            self._copy.record_stream(work)  # its memory was asked for by the transfer's stream
        else:
            self._done.synchronize()
        return self._copy


class CudaTransfer:
    """To (`up`) or from a GPU, on a stream of its own."""

    def __init__(self, device: torch.device, *, up: bool) -> None:
        self._device, self._up = device, up
        self._stream = torch.cuda.Stream(device)

    def send(self, source: Tensor) -> PendingCopy:
        """See `Transfer`. What goes up lies in page-locked memory (`staging`)."""
        if not self._up:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            if self._up:
                copy = torch.empty_like(source, device=self._device)
            else:
                copy = torch.empty_like(source, device="cpu", pin_memory=True)
                source.record_stream(self._stream)  # is not given to others before the copy is made
            copy.copy_(source, non_blocking=True)  # torch keeps page-locked memory until its copies are done
            return CudaPendingCopy(copy, self._stream.record_event())


def transfers(device: torch.device) -> tuple[Transfer, Transfer]:
    """To the device and back to the host."""
    if device.type == "cuda":
        return CudaTransfer(device, up=True), CudaTransfer(device, up=False)
    return PlainTransfer(device), PlainTransfer(torch.device("cpu"))


def staging(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Host memory, uint8, for what goes up to the device."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
