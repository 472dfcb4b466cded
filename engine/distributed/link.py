"""Messages between the ranks of a pipeline: a small header in host memory and one packed buffer on the device.

The ranks form a ring: rank 0 sends to rank 1, ..., the last rank to rank 0, and messages arrive in the order in which
they were sent. Headers are sent over gloo, so that no rank has to read its device to know what to do; buffers are sent
over NCCL between GPUs and over gloo between CPUs. What a message means is up to the callers.
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

MAX_ROWS = 4
"""Rows of the stream batch that a header can describe."""

MAX_PARTS = 10
"""Tensors that a header can describe, and so one message can carry."""

TIMEOUT = datetime.timedelta(days=1)
"""How long a rank waits for a message. A stream may pause for hours; a dead neighbour closes its connection at once."""

_FIXED = 9
_HEADER = _FIXED + 4 * MAX_ROWS + MAX_PARTS * 7
_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)


class RankLostError(EngineError):
    """A rank of the pipeline died or does not answer."""


class Op(enum.IntEnum):
    """The operation that a message requests from every rank that receives it."""

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
    """One row of a forward.

    Attributes:
        number: latent frames before this chunk since the stream began.
        position: RoPE position of the chunk's first latent frame.
        anchor: whether the chunk becomes the new sink.
        text: version of the prompt that it uses.
    """

    number: int
    position: int
    anchor: bool
    text: int


@dataclass(slots=True)
class Message:
    """One message.

    Attributes:
        op: the requested operation.
        rows: the rows of a FORWARD.
        frames: latent frames of each row.
        visible, even, again: as in `engine.stream.kv_cache.NewFrames`.
        copy: cache rows (from, to) to copy, by COPY or before a FORWARD; None for none.
        text: version of the prompt that a TEXT message carries.
        finished: bit mask; bit i is set if this forward finishes the chunk of `rows[i]`.
        first: row of the stream batch of `rows[0]`.
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
        """Everything but the contents of the parts, as an int64 vector in host memory.

        Raises:
            ValueError: if the message has more than `MAX_ROWS` rows or `MAX_PARTS` parts.
        """
        if len(self.rows) > MAX_ROWS or len(self.parts) > MAX_PARTS:
            raise ValueError(f"{len(self.rows)} rows and {len(self.parts)} parts do not fit into a header")
        copy = self.copy or (-1, -1)
        flags = int(self.even) | int(self.again) << 1
        fixed = [self.op, self.frames, self.visible, flags, *copy, self.text, self.finished, self.first]
        rows = [v for r in self.rows for v in (r.number, r.position, int(r.anchor), r.text)]
        parts = []
        for part in self.parts:
            parts += [_TYPES.index(part.dtype) + 1, part.ndim, *part.shape, *(0,) * (5 - part.ndim)]
        rows += [-1] * (4 * MAX_ROWS - len(rows))
        parts += [0] * (7 * MAX_PARTS - len(parts))
        return torch.tensor(fixed + rows + parts, dtype=torch.int64)

    @classmethod
    def read(cls, header: Tensor) -> tuple[Message, list[tuple[torch.dtype, tuple[int, ...]]]]:
        """Parse a header: the message without its parts, and the type and shape of each part."""
        values = header.tolist()
        op, frames, visible, flags, copy_from, copy_to, text, finished, first = values[:_FIXED]
        rows = []
        for at in range(_FIXED, _FIXED + 4 * MAX_ROWS, 4):
            number, position, anchor, version = values[at : at + 4]
            if number >= 0:
                rows.append(RowOrder(number, position, bool(anchor), version))
        layouts = []
        for at in range(_FIXED + 4 * MAX_ROWS, _HEADER, 7):
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
    """One rank's connections: it receives from the previous rank of the ring and sends to the next one.

    Args:
        rank, world: this rank's index and the number of ranks.
        device: where received parts are placed.
        store: the store through which the ranks find each other (`engine.distributed.rendezvous`).

    Raises:
        RankLostError: if the other ranks do not connect.
    """

    def __init__(self, rank: int, world: int, device: torch.device, store: dist.Store) -> None:
        self.rank, self.world, self.device = rank, world, device
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise RankLostError(f"The {world} ranks of the pipeline did not connect ({first_line(error)}).") from None
        self._sent: deque[tuple[list[dist.Work | None], list[Tensor]]] = deque()

    def send(self, message: Message, to: int | None = None) -> None:
        """Send to the next rank (or to `to`); waits only if more than `world` + 2 earlier messages are undelivered.

        A rank never has more than `world` answers undelivered, so the ranks cannot deadlock by waiting for each other.

        Raises:
            RankLostError: if that rank has ended.
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
        """Wait for the next message of the previous rank (or of `source`).

        Raises:
            RankLostError: if that rank has ended.
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


def pack(parts: Sequence[Tensor]) -> Tensor:
    """Tensors as one uint8 buffer; each part starts at a multiple of 8 bytes."""
    sizes = [_bytes(part.dtype, tuple(part.shape)) for part in parts]
    buffer = torch.empty(sum(sizes), dtype=torch.uint8, device=parts[0].device)
    at = 0
    for part, size in zip(parts, sizes, strict=True):
        target = buffer[at : at + part.numel() * part.element_size()]
        target.view(part.dtype).view(part.shape).copy_(part)
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
    """Size in bytes, rounded up to a multiple of 8."""
    return -(-torch.Size(shape).numel() * dtype.itemsize // 8) * 8


def _lost(rank: int, error: RuntimeError) -> RankLostError:
    return RankLostError(
        f"Rank {rank} of the pipeline is gone ({first_line(error)}).",
        "The stream continues on the remaining ranks.",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
