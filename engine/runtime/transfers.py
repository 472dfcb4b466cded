"""Asynchronous copies between host and device, so that frames are uploaded and downloaded while the device computes.

`Transfer.send` starts a copy and returns a `PendingCopy` at once; `PendingCopy.wait` returns the copy when it is made.
On a GPU, each direction has its own CUDA stream and uses page-locked host memory, and the host waits only for
downloads. On other devices, copies are made at once; on a CPU there is nothing to copy.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class PendingCopy(Protocol):
    """A copy that may not have arrived yet. Copies of one transfer arrive in the order in which they were sent."""

    @property
    def arrived(self) -> bool:
        """Whether the copy has arrived; never waits."""
        ...

    def wait(self) -> Tensor:
        """The copy. For an upload, work that is enqueued afterwards waits for it; for a download, the host waits."""
        ...


class Transfer(Protocol):
    """Copies in one direction."""

    def send(self, source: Tensor) -> PendingCopy:
        """Start to copy a tensor, after the work enqueued so far. Do not write to it before `PendingCopy.wait`."""
        ...


class FinishedCopy:
    """A copy that has been made already."""

    arrived = True

    def __init__(self, copy: Tensor) -> None:
        self._copy = copy

    def wait(self) -> Tensor:
        """See `PendingCopy`."""
        return self._copy


class PlainTransfer:
    """Copies at once. If the tensor is on the target device, it is returned itself."""

    def __init__(self, target: torch.device) -> None:
        self._target = target

    def send(self, source: Tensor) -> PendingCopy:
        """See `Transfer`."""
        return FinishedCopy(source.to(self._target))


class CudaPendingCopy:
    """A copy that a `CudaTransfer` makes."""

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
            self._copy.record_stream(work)  # its memory was allocated in the transfer's stream
        else:
            self._done.synchronize()
        return self._copy


class CudaTransfer:
    """Copies to (`up`) or from a GPU in its own CUDA stream."""

    def __init__(self, device: torch.device, *, up: bool) -> None:
        self._device, self._up = device, up
        self._stream = torch.cuda.Stream(device)

    def send(self, source: Tensor) -> PendingCopy:
        """See `Transfer`. Uploads have to be in page-locked memory (`staging`)."""
        if not self._up:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            if self._up:
                copy = torch.empty_like(source, device=self._device)
            else:
                copy = torch.empty_like(source, device="cpu", pin_memory=True)
                source.record_stream(self._stream)  # its memory is not reused before the copy is made
            copy.copy_(source, non_blocking=True)  # torch keeps page-locked memory until its copies are done
            return CudaPendingCopy(copy, self._stream.record_event())


def transfers(device: torch.device) -> tuple[Transfer, Transfer]:
    """The transfers to the device and back to the host."""
    if device.type == "cuda":
        return CudaTransfer(device, up=True), CudaTransfer(device, up=False)
    return PlainTransfer(device), PlainTransfer(torch.device("cpu"))


def staging(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A uint8 tensor in host memory for an upload to the device; page-locked if that is a GPU."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
