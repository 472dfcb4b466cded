"""The ring as rank 0 sees it: starts the other ranks, speaks with them, and knows which of them died.

Ranks on this machine are processes of their own that end with this one. Ranks on other machines are started there
(`torchrun`, see `engine.distributed.rank`) and meet at this rank's address. Must not know what is computed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from engine.distributed.link import Link, Message, Op, RankLostError, meet
from engine.distributed.split import Split


def split_of(edges: Tensor) -> Split:
    """A split from the int64 tensor [ranks, 2] that travels."""
    return tuple((int(start), int(end)) for start, end in edges.tolist())


LOST_NEIGHBOUR = 3
"""Exit status of a rank that ends because another one is gone."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every rank must know to take its part. Travels as JSON.

    `split` holds each rank's blocks; `decodes` whether the last rank decodes; `versions` how many texts it keeps;
    `files` the local paths of the model's files by role; `family` the package of its family, if it is a further one.
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
    """Rank 0's end.

    Args:
        job: what the ranks have to do.
        devices: one per rank, this rank's first; those of other machines are None.
        address, port: where ranks of other machines find this one; loopback and a free port by default.

    Raises:
        RankLostError: if a rank does not start.
    """

    def __init__(self, job: Job, devices: Sequence[str | None], *, address: str = "127.0.0.1", port: int = 0) -> None:
        self.job, self.world, self.decodes = job, len(devices), job.decodes
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        store = meet(address, port, self.world, host=True)
        store.set("job", job.dumps())
        try:
            for rank, device in enumerate(devices):
                if rank and device is not None:
                    self.processes[rank] = _start(rank, self.world, address, store.port, device)
            self._link = Link(0, self.world, torch.device(devices[0] or "cpu"), store)
        except RankLostError:
            self._kill()
            raise
        self._store = store

    def tell(self, message: Message) -> None:
        """Send a message round the ring."""
        self._link.send(message)

    def receive(self) -> Message:
        """The next answer; waits for it."""
        return self._link.receive()

    @property
    def link(self) -> Link:
        """This rank's end of the ring."""
        return self._link

    def lost(self) -> tuple[int, ...]:
        """Ranks of this machine that ended by themselves (not because a neighbour did)."""
        found = []
        for rank, process in self.processes.items():
            try:
                status = process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                continue
            if status != LOST_NEIGHBOUR:
                found.append(rank)
        return tuple(found)

    def close(self) -> None:
        """End the ranks. May be called again."""
        if self._link is None:
            return
        link, self._link = self._link, None  # type: ignore[assignment]
        try:
            link.send(Message(Op.STOP))
            for process in self.processes.values():
                process.wait(timeout=5.0)
        except (RankLostError, subprocess.TimeoutExpired):
            self._kill()
        link.close()

    def _kill(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def _start(rank: int, world: int, address: str, port: int, device: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "engine.distributed.rank",
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
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
