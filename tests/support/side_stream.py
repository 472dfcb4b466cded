"""Stands in for a card's side stream: records every copy, when the host waits, and what a real card would get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class RecordedMark:
    """The point after a copy; knows whether the host has waited for it."""

    def __init__(self) -> None:
        self.waited = False

    def synchronize(self) -> None:
        self.waited = True


class RecordingSideStream(TorchDispatchMode):
    """Implements `engine.runtime.transfers.SideStream` on the CPU, where memory of the host stands for the card's.

    Attributes:
        buffers: page-locked buffers that were asked for.
        uploads: copies out of them.
        faults: what a card would do wrong: a buffer overwritten before its copy is known to be done, a copy that is not
            in the side stream, an upload that keeps the host waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_active = False
        self.buffers = self.uploads = 0
        self.faults: list[str] = []
        self._pending: dict[int, RecordedMark | None] = {}
        self._last: int | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        self.is_active = True
        try:
            yield
        finally:
            self.is_active = False

    def mark(self) -> RecordedMark:
        mark = RecordedMark()
        if self._last is not None:
            self._pending[self._last] = mark
        return mark

    def page_locked(self, count: int) -> Tensor:
        buffer = torch.empty(count, dtype=torch.uint8)
        self.buffers += 1
        self._pending[buffer.untyped_storage().data_ptr()] = None
        self._kept = [*getattr(self, "_kept", []), buffer]  # so that no other tensor gets its address
        return buffer

    @contextmanager
    def recording(self) -> Iterator[None]:
        with self:
            yield

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if op.overloadpacket.__name__ == "copy_":
            self._copy(args[0], args[1], bool(kwargs.get("non_blocking", len(args) > 2 and args[2])))
        return op(*args, **kwargs)

    def _copy(self, target: Tensor, source: Tensor, non_blocking: bool) -> None:
        into, out_of = target.untyped_storage().data_ptr(), source.untyped_storage().data_ptr()
        if into in self._pending:
            mark = self._pending[into]
            if mark is not None and not mark.waited:
                self.faults.append("a buffer is overwritten while it may be copied from")
        if out_of in self._pending:
            self.uploads += 1
            self._last, self._pending[out_of] = out_of, RecordedMark()  # unsafe until a mark is made and waited for
            if not self.is_active:
                self.faults.append("a copy in the video's stream")
            if not non_blocking:
                self.faults.append("a copy for which the host waits")
