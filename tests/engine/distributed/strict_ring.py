"""A ring whose ranks are threads of this process, and whose device messages obey strict rendezvous.

A send to another rank's device returns only when that rank has posted the receive, and a receive only when the data is
there; each rank does one thing at a time. That is the least that NCCL promises: real GPUs overlap sends, receives and
computation, so whatever completes here, completes there. Messages through host memory are buffered, as over gloo.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable

import torch
from torch import Tensor

from engine.distributed.link import Link
from engine.distributed.message import Message, Op
from engine.distributed.rank import Rank
from engine.distributed.ring import Job

CPU = torch.device("cpu")


class Stuck(RuntimeError):
    """All ranks wait for each other."""


class _Posted:
    """A send that waits for its receive."""

    def __init__(self, data: Tensor) -> None:
        self.data, self.received = data.clone(), False


class Rendezvous:
    """What the transports of all ranks share.

    Args:
        world: number of ranks.
        patience: seconds without any progress after which ranks that all wait are stuck.
    """

    def __init__(self, world: int, patience: float = 30.0) -> None:
        self.world, self.patience = world, patience
        self.lock = threading.Condition()
        self.on_host: dict[tuple[int, int], deque[Tensor]] = defaultdict(deque)
        self.posted: dict[tuple[int, int], deque[_Posted]] = defaultdict(deque)
        self.device_messages: list[tuple[int, int]] = []
        self.waiting: dict[int, str] = {}
        self.progress = 0
        self.ended = ""

    def wait(self, rank: int, what: str, ready: Callable[[], bool]) -> None:
        """Wait with the lock held.

        Raises:
            Stuck: if all ranks do, and none can go on.
            RuntimeError: if the ring has ended.
        """
        self.waiting[rank] = what
        while not ready():
            before = self.progress
            if self.ended:
                raise RuntimeError(self.ended)
            self.lock.wait(self.patience)
            if before == self.progress and len(self.waiting) == self.world and not ready():
                self.ended = "; ".join(f"rank {r} waits to {what}" for r, what in sorted(self.waiting.items()))
                self.lock.notify_all()
                raise Stuck(self.ended)
        del self.waiting[rank]
        self.moved()

    def moved(self) -> None:
        """Something happened: let the waiting ranks look again."""
        self.progress += 1
        self.lock.notify_all()

    def end(self, why: str) -> None:
        """Let every rank that waits, or will wait, fail."""
        with self.lock:
            self.ended = self.ended or why
            self.moved()


class Delivered:
    """A delivery that is complete."""

    def wait(self) -> None:
        """See `engine.distributed.transport.Delivery`."""


class StrictTransport:
    """A `Transport` of one rank."""

    def __init__(self, rank: int, meeting: Rendezvous) -> None:
        self.rank, self.meeting = rank, meeting

    def send_host(self, data: Tensor, to: int) -> Delivered:
        """See `Transport`."""
        with self.meeting.lock:
            if self.meeting.ended:
                raise RuntimeError(self.meeting.ended)
            self.meeting.on_host[self.rank, to].append(data.clone())
            self.meeting.moved()
        return Delivered()

    def receive_host(self, data: Tensor, source: int) -> None:
        """See `Transport`."""
        with self.meeting.lock:
            sent = self.meeting.on_host[source, self.rank]
            self.meeting.wait(self.rank, f"receive from {source} on the host", lambda: bool(sent))
            data.copy_(sent.popleft())

    def send_device(self, data: Tensor, to: int) -> Delivered:
        """See `Transport`."""
        with self.meeting.lock:
            posted = _Posted(data)
            self.meeting.posted[self.rank, to].append(posted)
            self.meeting.device_messages.append((self.rank, to))
            self.meeting.moved()
            self.meeting.wait(self.rank, f"send to {to}", lambda: posted.received)
        return Delivered()

    def receive_device(self, data: Tensor, source: int, *, host_waits: bool = False) -> None:
        """See `Transport`. The host always waits."""
        with self.meeting.lock:
            sent = self.meeting.posted[source, self.rank]
            self.meeting.wait(self.rank, f"receive from {source}", lambda: bool(sent))
            found = sent.popleft()
            found.received = True
            data.copy_(found.data)
            self.meeting.moved()

    def close(self) -> None:
        """See `Transport`."""


class ThreadRing:
    """Stands in for `engine.distributed.ring.Ring`: the other ranks are threads.

    Args:
        job: the configuration that all ranks share.
        link: makes the link of a rank.
        patience: as for `Rendezvous`.
    """

    def __init__(
        self,
        job: Job,
        link: Callable[[int, int, torch.device, StrictTransport], Link] = Link,
        patience: float = 30.0,
    ) -> None:
        self.job, self.world, self.decodes = job, len(job.split), job.decodes
        self.meeting = Rendezvous(self.world, patience)
        links = [link(rank, self.world, CPU, StrictTransport(rank, self.meeting)) for rank in range(self.world)]
        self.link = links[0]
        self.ranks = [Rank(job, other) for other in links[1:]]  # one by one, since their weights are random
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(rank,), daemon=True) for rank in self.ranks]
        for thread in self.threads:
            thread.start()

    def _run(self, rank: Rank) -> None:
        torch.set_num_threads(1)
        try:
            rank.run()
        except Exception as error:  # reported by `close`
            self.errors.append(error)
            self.meeting.end(f"rank {rank.link.rank}: {error}")
        rank.link.close()

    def tell(self, message: Message) -> None:
        """See `Ring`."""
        self.link.send(message)

    def receive(self) -> Message:
        """See `Ring`."""
        return self.link.receive()

    def lost(self) -> tuple[int, ...]:
        """See `Ring`."""
        return ()

    def close(self) -> None:
        """See `Ring`."""
        if not self.meeting.ended:
            self.link.send(Message(Op.STOP))
        for thread in self.threads:
            thread.join(60)
        self.meeting.end("the ring is closed")
        if self.errors:
            raise self.errors[0]
