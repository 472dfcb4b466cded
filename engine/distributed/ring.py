"""Rank 0's side of the ring: starts the other ranks, exchanges messages with them, and notices which of them ended.

Ranks on this machine are child processes, which end with this one. Ranks on other machines are started there
(`torchrun`, see `engine.distributed.rank`) and connect to this rank's address.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from engine.distributed.child import PARENT, block_group_signals
from engine.distributed.link import Link, RankLostError, connect
from engine.distributed.message import Message, Op
from engine.distributed.rendezvous import (
    SECRET,
    given_secret,
    is_loopback,
    new_secret,
    open_store,
    signed,
    use_interface_of,
)
from engine.distributed.split import Split
from engine.distributed.transport import JOIN_TIMEOUT
from engine.errors import ModelError


def split_of(edges: Tensor) -> Split:
    """A split from its int64 tensor [ranks, 2] in a message."""
    return tuple((int(start), int(end)) for start, end in edges.tolist())


END_SECONDS = 3.0
"""Seconds after the end of a rank in which the others may end by themselves, before they are killed."""

STOP_SECONDS = 5.0
"""Longest wait for each of the other ranks to end when the ring is closed, before it is killed."""

EXIT_RANK_LOST = 3
"""Exit status of a rank that ends because another rank has ended."""


@dataclass(frozen=True, slots=True)
class Job:
    """The configuration that all ranks share; sent to them as JSON.

    Attributes:
        model: the model's name.
        height, width: pixels.
        split: each rank's blocks.
        max_steps: most denoising steps, which is the number of rows of the stream batch.
        versions: how many prompts each rank stores.
        rule: what happens to the cache's sinks, a name of `engine.stream.kv_cache.Rule`.
        codec: the autoencoder, a name in `engine.models.spec.CODECS`.
        dtype: floating point type of the network, by its name in torch.
        decodes: whether the last rank decodes; otherwise rank 0 does.
        tuned: whether the ranks choose their kernels by measurement during the warm-up, as a single process does.
        threads: CPU threads of every rank; 0 leaves the choice to torch.
        files: local paths of the model's files by role.
        family: package of the model's family; empty for those of `engine.models`.
    """

    model: str
    height: int
    width: int
    split: Split
    max_steps: int
    versions: int
    rule: str
    codec: str
    dtype: str
    decodes: bool
    tuned: bool = False
    threads: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    family: str = ""

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str | bytes) -> Job:
        """From JSON."""
        values = json.loads(text)
        values["split"] = tuple((start, end) for start, end in values["split"])
        return cls(**values)

    def paths(self) -> dict[str, Path]:
        """The files as paths."""
        return {role: Path(path) for role, path in self.files.items()}


class Ring:
    """Starts the other ranks and connects them.

    Args:
        job: the configuration that all ranks share.
        devices: one per rank, this rank's first; None for a rank on another machine.
        address, port: where ranks of other machines reach this one; loopback and a free port by default.
        join: how long to wait until all ranks are connected.

    Raises:
        ModelError: if a rank is on another machine and there is no address, port or secret for it.
        RankLostError: if a rank does not start.
    """

    def __init__(
        self,
        job: Job,
        devices: Sequence[str | None],
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        join: datetime.timedelta = JOIN_TIMEOUT,
    ) -> None:
        self.job, self.world, self.decodes = job, len(devices), job.decodes
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._killed: set[int] = set()
        self._closing = threading.Event()
        remote = None in devices[1:]
        if remote and (not port or is_loopback(address)):
            raise ModelError(
                f"A rank on another machine cannot reach this one at {address}:{port}.",
                'Name this machine\'s address and a free port: ring_address = "192.168.1.10:29500".',
            )
        secret = given_secret() if remote else new_secret()
        use_interface_of(address)
        # Ranks are killed when the thread that started them ends, so they get one that lives as long as the ring.
        self._starter = ThreadPoolExecutor(1, "ranks", initializer=block_group_signals)
        store = open_store(address, port, self.world, host=True)
        store.set("job", signed(job.dumps(), secret))
        try:
            for rank, device in enumerate(devices):
                if rank and device is not None:
                    started = self._starter.submit(_start, rank, self.world, address, store.port, device, secret)
                    self.processes[rank] = started.result()
            first = torch.device(devices[0] or "cpu")
            self._link = connect(0, self.world, first, store, check=self._check, join=join)
        except BaseException:
            self._kill()
            raise
        threading.Thread(target=self._watch, name="ranks-watch", daemon=True).start()
        self._store = store

    def await_ready(self) -> None:
        """Wait until every rank has loaded its shard; no device message is sent before that.

        Raises:
            RankLostError: if a rank ends instead.
        """
        self.tell(Message(Op.READY))
        self.receive()

    def tell(self, message: Message) -> None:
        """Send a message to rank 1, from where it passes through all ranks."""
        self._link.send(message)

    def receive(self) -> Message:
        """Wait for the next answer of the last rank."""
        return self._link.receive()

    @property
    def link(self) -> Link:
        """This rank's connections."""
        return self._link

    def lost(self) -> tuple[int, ...]:
        """Ranks of this machine that have ended, other than those that ended because another rank did."""
        found = []
        for rank, process in self.processes.items():
            try:
                status = process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                continue
            if status != EXIT_RANK_LOST and rank not in self._killed:
                found.append(rank)
        return tuple(found)

    def close(self) -> None:
        """Stop the other ranks; idempotent."""
        if self._link is None:
            return
        link, self._link = self._link, None  # type: ignore[assignment]
        self._closing.set()
        try:
            link.send(Message(Op.STOP))
            for process in self.processes.values():
                process.wait(timeout=STOP_SECONDS)
        except (RankLostError, subprocess.TimeoutExpired):
            self._kill()
        self._starter.shutdown()
        link.close()

    def _watch(self) -> None:
        """When a rank ends, end the others too: one of them may wait for it on its GPU, and rank 0 for that one."""
        while not self._closing.wait(0.25):
            if all(process.poll() is None for process in self.processes.values()):
                continue
            self._closing.wait(END_SECONDS)
            for rank, process in self.processes.items():
                if process.poll() is None:
                    self._killed.add(rank)
                    process.kill()
            return

    def _check(self) -> None:
        """Raises:
        RankLostError: if a rank of this machine has ended.
        """
        for rank, process in self.processes.items():
            status = process.poll()
            if status is not None:
                raise RankLostError(
                    f"Rank {rank} of the pipeline ended with status {status}.", "Its own message is in the log above."
                )

    def _kill(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self._starter.shutdown()


def _start(rank: int, world: int, address: str, port: int, device: str, secret: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "engine.distributed.child",
        "--rank",
        str(rank),
        "--world",
        str(world),
        "--address",
        address,
        "--port",
        str(port),
        "--device",
        device,
    ]
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), PARENT: str(os.getpid()), SECRET: secret}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
