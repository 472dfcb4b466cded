"""Asynchronous copies between host and device, so that frames are uploaded and downloaded while the device computes.

`Transfer.send` starts a copy and returns a `PendingCopy` at once; `PendingCopy.wait` returns the copy when it is made.
On a GPU, each direction has its own CUDA stream and uses page-locked host memory, and the host waits only for
downloads. On other devices, copies are made at once; on a CPU there is nothing to copy.

A `SideStream` is for work beside the video, such as encoding a prompt; `PiecewiseUpload` copies weights in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


PIECE_BYTES = 16 * 2**20
"""Size of a page-locked buffer for weights, in bytes. A frame of the video waits behind two such copies at most, 0.7 ms
each at 25 GB/s."""


class Mark(Protocol):
    """A point in the work of a stream."""

    def synchronize(self) -> None:
        """Let the host wait until the work before the point is done."""
        ...


class SideStream(Protocol):
    """A queue for work that must not delay the video. The host may wait for it, in a thread of its own."""

    def active(self) -> AbstractContextManager[None]:
        """Within this context, the device's work of the current thread is enqueued here."""
        ...

    def mark(self) -> Mark:
        """The point that the enqueued work has reached."""
        ...

    def page_locked(self, count: int) -> Tensor:
        """A host buffer of `count` bytes, uint8, from which the device copies without the host."""
        ...


class HostSideStream:
    """Stands for a `SideStream` where the host does all work at once."""

    def active(self) -> AbstractContextManager[None]:
        """See `SideStream`."""
        return nullcontext()

    def mark(self) -> Mark:
        """See `SideStream`."""
        return self

    def synchronize(self) -> None:
        """See `Mark`: there is nothing to wait for."""

    def page_locked(self, count: int) -> Tensor:
        """See `SideStream`."""
        return torch.empty(count, dtype=torch.uint8)


class CudaSideStream:
    """A CUDA stream of the lowest priority. The video's stream has a higher one (`device.use_video_stream`)."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device, priority=0)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `SideStream`."""
        with torch.cuda.stream(self._stream):
            yield

    def mark(self) -> Mark:
        """See `SideStream`."""
        done = torch.cuda.Event(blocking=True)  # the waiting thread sleeps; else it would keep a core busy
        done.record(self._stream)
        return done

    def page_locked(self, count: int) -> Tensor:
        """See `SideStream`."""
        return torch.empty(count, dtype=torch.uint8, pin_memory=True)


def side_stream(device: torch.device) -> SideStream:
    """A stream for work on the device beside the video."""
    return CudaSideStream(device) if device.type == "cuda" else HostSideStream()


class PiecewiseUpload:
    """Copies tensors from ordinary host memory to a device, through two page-locked buffers that take turns.

    A copy from ordinary memory keeps the host waiting; page-locking the weights themselves would take as much memory
    again. So the host fills one buffer while the device copies from the other.

    Args:
        side: the stream in which the device copies; `send` is called while it is active.
        piece_bytes: size of each buffer.
    """

    def __init__(self, side: SideStream, piece_bytes: int = PIECE_BYTES) -> None:
        self._side, self._piece_bytes = side, piece_bytes
        self._buffers: list[tuple[Tensor, Mark]] = []

    def send(self, source: Tensor, target: Tensor) -> None:
        """Copy `source` to `target`, a contiguous tensor of the same type and shape on the device.

        When this returns, `source` has been read; the last copies of the device may be under way.
        """
        read, written = _bytes(source.contiguous()), _bytes(target)
        for start in range(0, len(read), self._piece_bytes):
            piece = read[start : start + self._piece_bytes]
            buffer = self._free_buffer()
            buffer[: len(piece)].copy_(piece)
            written[start : start + len(piece)].copy_(buffer[: len(piece)], non_blocking=True)
            self._buffers.append((buffer, self._side.mark()))

    def _free_buffer(self) -> Tensor:
        """The buffer whose copy was started first, when that copy is done."""
        if len(self._buffers) < 2:
            return self._side.page_locked(self._piece_bytes)
        buffer, copied = self._buffers.pop(0)
        copied.synchronize()
        return buffer


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.view(-1).view(torch.uint8)


def staging(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A uint8 tensor in host memory for an upload to the device; page-locked if that is a GPU."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
