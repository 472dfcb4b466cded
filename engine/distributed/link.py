"""Messages between the ranks of a pipeline: a small header on the host, and with it one packed buffer on the device.

The ranks form a ring: rank 0 sends to rank 1, ..., the last rank back to rank 0, and everything arrives in the order
in which it was sent. Headers travel over gloo, so no rank reads its device to know what to do; buffers travel over
NCCL between GPUs and over gloo between CPUs. Must not know networks, caches or what a message means.
"""

from __future__ import annotations

import datetime
import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import EngineError

MOST_ROWS = 4
"""Rows of the stream batch that a header has room for."""

MOST_PARTS = 10
"""Tensors that one buffer can hold."""

TIMEOUT = datetime.timedelta(days=1)
"""How long a rank waits for a message. A stream may stand still for hours; a dead neighbour shows at once."""

_FIXED = 9
_HEADER = _FIXED + 4 * MOST_ROWS + MOST_PARTS * 7
_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)


class RankLostError(EngineError):
    """A rank of the pipeline died or does not answer."""


class Op(enum.IntEnum):
    """What a message asks of every rank that it passes."""

    FORWARD = 1
    TEXT = 2
    RESET = 3
    COPY = 4
    DECODE = 5
    TIMES = 6
    SPLIT = 7
    STOP = 8


@dataclass(frozen=True, slots=True)
class RowOrder:
    """One row of a forward: its chunk's number and position, whether it re-anchors, which text it reads."""

    number: int
    position: int
    anchor: bool
    text: int


@dataclass(slots=True)
class Message:
    """One message.

    Attributes:
        op: what to do.
        rows: of a forward.
        first: row of the stream batch that `rows` begin with.
        frames: latent frames of each row.
        visible, even, again: as in `engine.stream.kv_cache.NewFrames`.
        copy: cache rows (from, to) to copy (before the forward); None for none.
        text: number of the text that a TEXT message carries.
        finished: bit i is set when the i-th of `rows` is finished by this forward.
        parts: tensors on the device.
    """

    op: Op
    rows: tuple[RowOrder, ...] = ()
    frames: int = 1
    visible: int = 0
    even: bool = True
    again: bool = False
    copy: tuple[int, int] | None = None
    text: int = 0
    finished: int = 0
    first: int = 0
    parts: list[Tensor] = field(default_factory=list)

    def header(self) -> Tensor:
        """Everything but the contents of the parts, as int64 on the host.

        Raises:
            ValueError: if the message has more rows or parts than a header has room for.
        """
        if len(self.rows) > MOST_ROWS or len(self.parts) > MOST_PARTS:
            raise ValueError(f"{len(self.rows)} rows and {len(self.parts)} parts do not fit into a header")
        copy = self.copy or (-1, -1)
        flags = int(self.even) | int(self.again) << 1
        fixed = [self.op, self.frames, self.visible, flags, *copy, self.text, self.finished, self.first]
        rows = [v for r in self.rows for v in (r.number, r.position, int(r.anchor), r.text)]
        parts = []
        for part in self.parts:
            parts += [_TYPES.index(part.dtype) + 1, part.ndim, *part.shape, *(0,) * (5 - part.ndim)]
        rows += [-1] * (4 * MOST_ROWS - len(rows))
        parts += [0] * (7 * MOST_PARTS - len(parts))
        return torch.tensor(fixed + rows + parts, dtype=torch.int64)

    @classmethod
    def read(cls, header: Tensor) -> tuple[Message, list[tuple[torch.dtype, tuple[int, ...]]]]:
        """A message without its parts, and what the parts are."""
        values = header.tolist()
        op, frames, visible, flags, copy_from, copy_to, text, finished, first = values[:_FIXED]
        rows = []
        for at in range(_FIXED, _FIXED + 4 * MOST_ROWS, 4):
            number, position, anchor, version = values[at : at + 4]
            if number >= 0:
                rows.append(RowOrder(number, position, bool(anchor), version))
        layouts = []
        for at in range(_FIXED + 4 * MOST_ROWS, _HEADER, 7):
            if values[at]:
                layouts.append((_TYPES[values[at] - 1], tuple(values[at + 2 : at + 2 + values[at + 1]])))
        message = cls(
            Op(op),
            tuple(rows),
            frames,
            visible,
            bool(flags & 1),
            bool(flags & 2),
            (copy_from, copy_to) if copy_from >= 0 else None,
            text,
            finished,
            first,
        )
        return message, layouts


class Link:
    """One rank's two ends of the ring: it receives from the rank before it and sends to the one after it.

    Args:
        rank, world: place in the ring and its length.
        device: where parts are.
        store: where the ranks meet (see `meet`).

    Raises:
        RankLostError: if the others do not come.
    """

    def __init__(self, rank: int, world: int, device: torch.device, store: dist.Store) -> None:
        self.rank, self.world, self.device = rank, world, device
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise RankLostError(f"The {world} ranks of the pipeline did not meet ({_first_line(error)}).") from None
        self._sent: deque[tuple[list[dist.Work | None], list[Tensor]]] = deque()

    def send(self, message: Message, to: int | None = None) -> None:
        """Send to the next rank (or another one); waits only while more messages than ranks are on their way.

        A rank never has more than `world` answers on their way, so no circle of ranks can wait for each other.

        Raises:
            RankLostError: if that rank is gone.
        """
        to = (self.rank + 1) % self.world if to is None else to
        header = message.header()
        try:
            works, kept = [dist.isend(header, to)], [header]
            if message.parts:
                buffer = pack(message.parts)
                works.append(dist.isend(buffer, to))
                kept.append(buffer)
            self._sent.append((works, kept))
            while len(self._sent) > self.world + 2:
                for work in filter(None, self._sent.popleft()[0]):
                    work.wait()
        except RuntimeError as error:
            raise _lost(to, error) from None

    def receive(self, source: int | None = None) -> Message:
        """The next message of the rank before (or another one); waits for it.

        Raises:
            RankLostError: if that rank is gone.
        """
        source = (self.rank - 1) % self.world if source is None else source
        header = torch.empty(_HEADER, dtype=torch.int64)
        try:
            dist.recv(header, source)
            message, layouts = Message.read(header)
            if layouts:
                buffer = torch.empty(sum(_bytes(*part) for part in layouts), dtype=torch.uint8, device=self.device)
                dist.recv(buffer, source)
                message.parts = unpack(buffer, layouts)
        except RuntimeError as error:
            raise _lost(source, error) from None
        return message

    def close(self) -> None:
        """Leave the ring."""
        self._sent.clear()
        if dist.is_initialized():
            dist.destroy_process_group()


def meet(address: str, port: int, world: int, *, host: bool, seconds: float = 300.0) -> dist.TCPStore:
    """The place where the ranks of a ring find each other; rank 0 is the host, on a free port if `port` is 0.

    Raises:
        RankLostError: if the host does not answer.
    """
    try:
        return dist.TCPStore(
            address, port, world, is_master=host, timeout=datetime.timedelta(seconds=seconds), wait_for_workers=False
        )
    except (RuntimeError, ValueError) as error:
        raise RankLostError(f"No pipeline answers at {address}:{port} ({_first_line(error)}).") from None


def pack(parts: Sequence[Tensor]) -> Tensor:
    """Tensors as one uint8 buffer, each part at a multiple of 8 bytes."""
    sizes = [_bytes(part.dtype, tuple(part.shape)) for part in parts]
    buffer = torch.empty(sum(sizes), dtype=torch.uint8, device=parts[0].device)
    at = 0
    for part, size in zip(parts, sizes, strict=True):
        room = buffer[at : at + part.numel() * part.element_size()]
        room.view(part.dtype).view(part.shape).copy_(part)
        at += size
    return buffer


def unpack(buffer: Tensor, layouts: Sequence[tuple[torch.dtype, tuple[int, ...]]]) -> list[Tensor]:
    """The parts of a packed buffer, as views of it."""
    parts, at = [], 0
    for dtype, shape in layouts:
        count = torch.Size(shape).numel() * dtype.itemsize
        parts.append(buffer[at : at + count].view(dtype).view(shape))
        at += _bytes(dtype, shape)
    return parts


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return -(-torch.Size(shape).numel() * dtype.itemsize // 8) * 8


def _lost(rank: int, error: RuntimeError) -> RankLostError:
    return RankLostError(
        f"Rank {rank} of the pipeline is gone ({_first_line(error)}).",
        "The stream goes on with the ranks that are left.",
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
