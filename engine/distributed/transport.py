"""How bytes move between the ranks of a pipeline: through host memory over gloo, or between GPUs over NCCL.

`engine.distributed.link` decides which way each message goes. The tests implement `Transport` too, with stricter rules
than any real one.
"""

from __future__ import annotations

import datetime
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

MESSAGE_TIMEOUT = datetime.timedelta(days=1)
"""How long a rank waits for a message. A stream may pause for hours; a dead neighbour closes its connection at once."""

JOIN_TIMEOUT = datetime.timedelta(minutes=5)
"""How long the ranks wait for each other at the start, before any of them loads its weights."""

CLOSE_SECONDS = 20.0
"""How long the end of the connections may take. Aborting NCCL has been seen to hang when a peer was dead."""

POLL_SECONDS = 0.0005
"""Pause between two looks at a message between GPUs that is not complete."""


class Delivery(Protocol):
    """A message on its way."""

    def wait(self) -> None:
        """Let the host wait until the message is delivered; no work on the device waits for it."""
        ...


class Transport(Protocol):
    """Messages between this rank and the others; between two ranks they arrive in the order in which they were sent.

    All methods may raise RuntimeError when the other rank has ended.
    """

    def send_host(self, data: Tensor, to: int) -> Delivery:
        """Start to send a tensor in host memory. Never waits for the receiver. Leave the tensor unchanged meanwhile."""
        ...

    def receive_host(self, data: Tensor, source: int) -> None:
        """Wait for a tensor in host memory."""
        ...

    def send_device(self, data: Tensor, to: int) -> Delivery:
        """Start to send a tensor on the device, after the work enqueued so far.

        The send may occupy the device, or this thread, until the receiver calls `receive_device`.
        """
        ...

    def receive_device(self, data: Tensor, source: int, *, host_waits: bool = False) -> None:
        """Receive a tensor on the device; work that is enqueued afterwards waits for it.

        Args:
            data: contiguous, on the device; filled.
            source: the rank that sends it.
            host_waits: whether the host waits too, until the tensor is there. If a rank is known to have ended
                meanwhile, this raises, and no work on the device waits for that rank.
        """
        ...

    def close(self) -> None:
        """End the connections without waiting for other ranks.

        Raises:
            RuntimeError: if they do not end within `CLOSE_SECONDS`.
        """
        ...


class TorchTransport:
    """torch.distributed: gloo for host memory; for the device NCCL between GPUs, gloo between CPUs.

    Args:
        rank, world: this rank's index and the number of ranks.
        device: the rank's device.
        store: the store through which the ranks find each other (`engine.distributed.rendezvous`).
        check: called while this rank waits for others; raises if one of them is known to have ended.
        join: how long to wait for the other ranks.

    Raises:
        RuntimeError: if a rank does not join in time, or what `check` raises.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        device: torch.device,
        store: dist.TCPStore,
        *,
        check: Callable[[], None] = lambda: None,
        join: datetime.timedelta = JOIN_TIMEOUT,
    ) -> None:
        self._device, self._check = device, check
        _meet(rank, world, store, check, join)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=join)
        self._gpus: dist.ProcessGroup | None = None
        if device.type == "cuda":
            # Otherwise torch ends the whole process, rank 0 too, when it notices that a peer is gone.
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
            self._gpus = dist.new_group(backend="nccl", timeout=join)

    def send_host(self, data: Tensor, to: int) -> Delivery:
        """See `Transport`."""
        return _GlooDelivery(dist.isend(data, to))

    def receive_host(self, data: Tensor, source: int) -> None:
        """See `Transport`."""
        _work(dist.irecv(data, source)).wait(MESSAGE_TIMEOUT)

    def send_device(self, data: Tensor, to: int) -> Delivery:
        """See `Transport`."""
        if self._gpus is None:
            return self.send_host(data, to)
        return _NcclDelivery(_work(dist.isend(data, to, group=self._gpus)), data, self._check)

    def receive_device(self, data: Tensor, source: int, *, host_waits: bool = False) -> None:
        """See `Transport`."""
        if self._gpus is None:
            self.receive_host(data, source)
            return
        work = _work(dist.irecv(data, source, group=self._gpus))
        if host_waits:
            _NcclDelivery(work, data, self._check).wait()
        else:
            work.wait()

    def close(self) -> None:
        """See `Transport`. NCCL is always aborted: destroying it waits for ranks that may be dead."""

        def end() -> None:
            if self._gpus is not None:
                torch.cuda.set_device(self._device)
                self._gpus.abort()
            if dist.is_initialized():
                dist.destroy_process_group()

        ending = threading.Thread(target=end, name="ring-close", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            raise RuntimeError(f"the connections to the other ranks did not end within {CLOSE_SECONDS:g} s")


class _GlooDelivery:
    def __init__(self, work: dist.Work | None) -> None:
        self._work = _work(work)

    def wait(self) -> None:
        self._work.wait(MESSAGE_TIMEOUT)


class _NcclDelivery:
    """A message between GPUs. `Work.wait` alone would make the compute stream wait for a rank that may be dead."""

    def __init__(self, work: dist.Work, data: Tensor, check: Callable[[], None]) -> None:
        self._work, self._data, self._check = work, data, check  # the data must live until it is sent

    def wait(self) -> None:
        while not self._work.is_completed():
            self._check()
            time.sleep(POLL_SECONDS)
        self._check()
        self._work.wait()  # a message that failed counts as completed too; this raises its error


def _work(work: dist.Work | None) -> dist.Work:
    assert work is not None, "every rank is a member of the ring's groups"
    return work


def _meet(rank: int, world: int, store: dist.TCPStore, check: Callable[[], None], join: datetime.timedelta) -> None:
    """Wait until all ranks are at the store, since torch's own rendezvous does not notice that a rank has ended."""
    if rank:
        store.set(f"joined/{rank}", "")
        store.wait(["all joined"], join)
        return
    deadline = time.monotonic() + join.total_seconds()
    missing = set(range(1, world))
    while missing:
        check()
        missing = {other for other in missing if not store.check([f"joined/{other}"])}
        if missing and time.monotonic() > deadline:
            raise RuntimeError(f"rank {min(missing)} did not join within {join.total_seconds():g} s")
        if missing:
            time.sleep(0.02)
    store.set("all joined", "")
