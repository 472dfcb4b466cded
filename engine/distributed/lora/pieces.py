"""A LoRA as bounded messages: a list of what it holds, and its bytes in pieces; other messages may pass in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from engine.distributed.message import Message, Op, packed_bytes
from engine.network.lora.updates import Lora, Update

PIECE = 4 * 2**20
"""Most bytes of a piece; the list of a LoRA for a 14B network has about a tenth of that."""

PARTS = ("down", "up", "dense", "magnitude")
"""The tensors that an `Update` may have."""


def messages_of(slot: int, lora: Lora) -> Iterator[Message]:
    """The messages that carry a LoRA, whose tensors are in host memory, to the other ranks."""
    listed: list[dict[str, Any]] = []
    for name, update in lora.updates.items():
        for part, tensor in _tensors(update):
            kind = str(tensor.dtype).removeprefix("torch.")
            listed.append({"name": name, "part": part, "type": kind, "shape": [*tensor.shape], "scale": update.scale})
    head = {"source": lora.source, "tensors": listed}
    yield Message(Op.LORA, text=slot, parts=[torch.frombuffer(bytearray(json.dumps(head).encode()), dtype=torch.uint8)])
    for piece in _pieces(lora):
        yield Message(Op.LORA_PIECE, text=slot, parts=[piece])


def _tensors(update: Update) -> Iterator[tuple[str, Tensor]]:
    for part in PARTS:
        tensor: Tensor | None = getattr(update, part)
        if tensor is not None:
            yield part, tensor


def _pieces(lora: Lora) -> Iterator[Tensor]:
    """The bytes of all tensors, each padded to a multiple of 8, in pieces."""
    piece, filled = torch.zeros(PIECE, dtype=torch.uint8), 0
    for update in lora.updates.values():
        for _, tensor in _tensors(update):
            content = tensor.contiguous().flatten().view(torch.uint8)
            padded = packed_bytes(tensor.dtype, tuple(tensor.shape))
            at = 0
            while at < padded:
                count = min(padded - at, PIECE - filled)
                part = content[at : at + count]
                piece[filled : filled + len(part)] = part
                at, filled = at + count, filled + count
                if filled == PIECE:
                    yield piece
                    piece, filled = torch.zeros(PIECE, dtype=torch.uint8), 0
    if filled:
        yield piece[:filled]


class Arrival:
    """A LoRA that is arriving.

    Args:
        head: the first part of the message `Op.LORA`.

    Attributes:
        slot: where it belongs.
    """

    def __init__(self, slot: int, head: Tensor) -> None:
        self.slot = slot
        found = json.loads(bytes(head.tolist()))
        self._source: str = found["source"]
        self._listed: list[dict[str, Any]] = found["tensors"]
        sizes = [packed_bytes(getattr(torch, entry["type"]), tuple(entry["shape"])) for entry in self._listed]
        self._bytes = torch.zeros(sum(sizes), dtype=torch.uint8)
        self._filled = 0

    def add(self, piece: Tensor) -> Lora | None:
        """Take the next piece; returns the LoRA after the last one."""
        self._bytes[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)
        return self._lora() if self._filled >= len(self._bytes) else None

    def _lora(self) -> Lora:
        parts: dict[str, dict[str, Any]] = {}
        at = 0
        for entry in self._listed:
            dtype, shape = getattr(torch, entry["type"]), tuple(entry["shape"])
            size = torch.Size(shape).numel() * dtype.itemsize
            update = parts.setdefault(entry["name"], {"scale": entry["scale"]})
            update[entry["part"]] = self._bytes[at : at + size].view(dtype).view(shape)
            at += packed_bytes(dtype, shape)
        return Lora(self._source, {name: Update(**update) for name, update in parts.items()})
