"""What the ranks of a pipeline tell each other: a header of fixed size, and tensors packed into one buffer.

What a message means is up to `engine.distributed.pipeline_stream` and `engine.distributed.rank`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MAX_ROWS = 4
"""Rows of the stream batch that a header can describe."""

MAX_PARTS = 10
"""Tensors that a header can describe, and so one message can carry."""

_FIXED = 9

HEADER = _FIXED + 4 * MAX_ROWS + MAX_PARTS * 7
"""Integers in a header."""

_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)


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
    READY = 9
    LORA = 10
    LORA_PIECE = 11
    LORA_GONE = 12
    BLEND = 13


LORA_OPS = (Op.LORA, Op.LORA_PIECE, Op.LORA_GONE, Op.BLEND)
"""Operations that `engine.distributed.lora.rank_loras` carries out."""

HOST_OPS = (Op.TIMES, Op.SPLIT, *LORA_OPS)
"""Operations whose parts are in host memory: numbers that the host reads, not the device."""


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
        text: version of the prompt that a TEXT message carries; with `LORA_OPS` the slot.
        finished: bit mask; bit i is set if this forward finishes the chunk of `rows[i]`.
        first: row of the stream batch of `rows[0]`.
        parts: tensors on the device, or in host memory (`HOST_OPS`).
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
        for at in range(_FIXED + 4 * MAX_ROWS, HEADER, 7):
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


def pack(parts: Sequence[Tensor]) -> Tensor:
    """Tensors as one uint8 buffer; each part starts at a multiple of 8 bytes."""
    sizes = [packed_bytes(part.dtype, tuple(part.shape)) for part in parts]
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
        at += packed_bytes(dtype, shape)
    return parts


def packed_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """Size in bytes, rounded up to a multiple of 8."""
    return -(-torch.Size(shape).numel() * dtype.itemsize // 8) * 8
