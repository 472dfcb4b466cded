"""One rank's connections in the ring, and the way that each message takes.

The ranks form a ring: rank 0 sends to rank 1, ..., the last rank to rank 0. Messages arrive in the order in which they
were sent. Each has a header in host memory, so that no rank has to read its device to know what to do.

Buffers go from GPU to GPU (NCCL) along the line from rank 0 to the last rank, and through host memory (gloo) on the way
back. This is what keeps the ring free of deadlocks. A NCCL send may occupy the device until its receive is posted. If
both directions used NCCL, two ranks could stand in a send to each other: certainly if they share a communicator and
with it a CUDA stream, as the two directions of a pair do; and with a communicator for each direction still when both
hosts enter a CUDA call that waits for the whole device (freeing memory, loading a kernel), or when the driver puts two
CUDA streams into one hardware queue. Along a line there is no such cycle: the last rank never waits for a receiver, so
it always receives, and so does every rank before it. The answer to a call is about 10 MB; copying it to the host and
back takes some milliseconds, and no GPU waits for that while other calls are in flight.
"""

from __future__ import annotations

import datetime
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from engine.distributed.message import HEADER, HOST_OPS, Message, pack, packed_bytes, unpack
from engine.distributed.transport import JOIN_TIMEOUT, Delivery, TorchTransport, Transport
from engine.errors import EngineError
from engine.runtime.transfers import FinishedCopy, PendingCopy, staging, transfers


class RankLostError(EngineError):
    """A rank of the pipeline died or does not answer."""


class Link:
    """One rank's connections: it receives from the previous rank of the ring and sends to the next one.

    Args:
        rank, world: this rank's index and the number of ranks.
        device: where received parts are placed.
        transport: moves the messages.
        failed: called, in another thread, if an answer cannot be computed or sent: rank 0 waits for it.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        device: torch.device,
        transport: Transport,
        failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.rank, self.world, self.device = rank, world, device
        self._transport = transport
        self._next, self._previous = (rank + 1) % world, (rank - 1) % world
        self._up, down = transfers(device)
        self._sent: deque[tuple[Delivery, Tensor]] = deque()
        self._answers: _AnswerThread | None = None
        if self._next == 0:
            self._down = down
            self._answers = _AnswerThread(self._send_answer, failed)

    def send(self, message: Message) -> None:
        """Send to the next rank; waits only if more than `world` + 2 earlier messages are undelivered.

        Raises:
            RankLostError: if that rank has ended.
        """
        header, buffer = message.header(), pack(message.parts) if message.parts else None
        if self._answers is not None:
            copy = None
            if buffer is not None:
                copy = FinishedCopy(buffer) if message.op in HOST_OPS else self._down.send(buffer)
            try:
                self._answers.put(header, copy)
            except RuntimeError as error:
                raise _lost(0, error) from None
            return
        try:
            self._start(self._transport.send_host, header)
            if buffer is not None:
                on_host = message.op in HOST_OPS
                self._start(self._transport.send_host if on_host else self._transport.send_device, buffer)
            self._limit()
        except RuntimeError as error:
            raise _lost(self._next, error) from None

    def receive(self) -> Message:
        """Wait for the next message of the previous rank.

        Raises:
            RankLostError: if that rank has ended.
        """
        header = torch.empty(HEADER, dtype=torch.int64)
        try:
            self._transport.receive_host(header, self._previous)
            message, layouts = Message.read(header)
            if layouts:
                size = sum(packed_bytes(*part) for part in layouts)
                message.parts = unpack(self._receive_buffer(size, message), layouts)
        except RuntimeError as error:
            raise _lost(self._previous, error) from None
        return message

    def give(self, tensors: Sequence[Tensor], to: int) -> None:
        """Send tensors on the device to any rank, one at a time, and wait until each is delivered.

        So only one of them is copied and in transit at a time. All ranks have to give and take in one common order,
        with no message in transit.

        Raises:
            RankLostError: if that rank has ended.
        """
        try:
            for tensor in tensors:
                self._transport.send_device(tensor.contiguous(), to).wait()
        except RuntimeError as error:
            raise _lost(to, error) from None

    def take(self, tensors: Sequence[Tensor], source: int) -> None:
        """Fill contiguous tensors on the device with those that `source` gives, and wait until they are there.

        Raises:
            RankLostError: if that rank has ended.
        """
        try:
            for tensor in tensors:
                self._transport.receive_device(tensor, source, host_waits=True)
        except RuntimeError as error:
            raise _lost(source, error) from None

    def close(self) -> None:
        """Leave the ring. Answers that were sent before still leave, unless rank 0 is gone.

        Raises:
            RankLostError: if the connections cannot be ended; then this process has to end.
        """
        if self._answers is not None:
            self._answers.close()
        self._sent.clear()
        try:
            self._transport.close()
        except RuntimeError as error:
            raise RankLostError(f"The ring cannot be closed: {error}.", "Restart the engine.") from None

    def _receive_buffer(self, size: int, message: Message) -> Tensor:
        if message.op in HOST_OPS:
            buffer = torch.empty(size, dtype=torch.uint8)
            self._transport.receive_host(buffer, self._previous)
        elif self.rank == 0:
            arrived = staging((size,), self.device)
            self._transport.receive_host(arrived, self._previous)
            buffer = self._up.send(arrived).wait()
        else:
            buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
            self._transport.receive_device(buffer, self._previous)
        return buffer

    def _start(self, send: Callable[[Tensor, int], Delivery], data: Tensor) -> None:
        self._sent.append((send(data, self._next), data))

    def _limit(self) -> None:
        while len(self._sent) > 2 * (self.world + 2):
            self._sent.popleft()[0].wait()

    def _send_answer(self, header: Tensor, copy: PendingCopy | None) -> None:
        """Send an answer to rank 0 as soon as the device has computed it; in the answers' own thread."""
        self._start(self._transport.send_host, header)
        if copy is not None:
            self._start(self._transport.send_host, copy.wait())
        self._limit()


class _AnswerThread:
    """Waits for the device in place of the rank's thread, which meanwhile enqueues the work of the next messages.

    Args:
        send: sends one answer; called in the order of `put`.
        failed: as for `Link`.
    """

    def __init__(self, send: Callable[[Tensor, PendingCopy | None], None], failed: Callable[[Exception], None]) -> None:
        self._send, self._failed = send, failed
        self._waiting: queue.SimpleQueue[tuple[Tensor, PendingCopy | None] | None] = queue.SimpleQueue()
        self._error: RuntimeError | None = None
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def put(self, header: Tensor, copy: PendingCopy | None) -> None:
        """Send this answer after the earlier ones.

        Raises:
            RuntimeError: that of an earlier answer.
        """
        if self._error is not None:
            raise self._error
        self._waiting.put((header, copy))

    def close(self) -> None:
        """Send what is waiting, and end the thread; do not wait for a device that has hung."""
        self._waiting.put(None)
        self._thread.join(5.0)

    def _run(self) -> None:
        while (answer := self._waiting.get()) is not None and self._error is None:
            try:
                self._send(*answer)
            except Exception as error:
                self._error = RuntimeError(first_line(error))
                self._failed(error)


def connect(
    rank: int,
    world: int,
    device: torch.device,
    store: dist.TCPStore,
    *,
    check: Callable[[], None] = lambda: None,
    failed: Callable[[Exception], None] = lambda error: None,
    join: datetime.timedelta = JOIN_TIMEOUT,
) -> Link:
    """Join the ring; arguments as for `TorchTransport` and `Link`.

    Raises:
        RankLostError: if the other ranks do not join.
    """
    try:
        transport = TorchTransport(rank, world, device, store, check=check, join=join)
        return Link(rank, world, device, transport, failed)
    except RuntimeError as error:
        raise RankLostError(f"The {world} ranks of the pipeline did not connect ({first_line(error)}).") from None


def _lost(rank: int, error: RuntimeError) -> RankLostError:
    return RankLostError(
        f"Rank {rank} of the pipeline is gone ({first_line(error)}).",
        "The stream continues on the remaining ranks.",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
