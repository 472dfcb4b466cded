"""Captured work without a GPU: does the work again and insists on what a CUDA graph takes for granted.

A CUDA graph repeats the very same kernels on the very same addresses with the very same numbers in their calls, and
the host has no part in it. Here the work is written down operation by operation when it is captured and compared
operation by operation when it is replayed; whatever a graph would silently get wrong, or could not be captured at all,
is an error with a name. Knows nothing of streams or networks.

What it cannot see: operations inside compiled code, and copies between devices, of which a CPU has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.errors import CaptureError

HOST_READS = (
    "item",
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "argwhere",
    "equal",
    "allclose",
    "masked_select",
    "bincount",
    "unique_dim",
    "unique_consecutive",
    "_unique",
    "_unique2",
)
"""Operations that wait for numbers of the device."""

HOST_SENDS = ("lift_fresh", "lift", "scalar_tensor")
"""Operations that bring numbers of the host to the device while they run."""

RANDOM_OPS = (
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "randint",
    "normal",
    "normal_",
    "uniform_",
    "bernoulli",
    "bernoulli_",
    "dropout",
)
"""Operations that a graph repeats with other random numbers than the stream's own generator would give."""


class GraphChecker:
    """Stands in for CUDA graphs on a CPU."""

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        """Do the work once and write down what it did.

        Args:
            work: touches only tensors that stay where they are, and gives back a new one.
            host: tensors that lie on the host on every machine; the work may read and write them.

        Returns:
            Does the work again; its result is one and the same tensor each time.

        Raises:
            CaptureError: if a CUDA graph could not hold the work; at a replay, if it is not the same any more.
        """
        script, result = _run_logged(work, host)

        def replay() -> Tensor:
            again, new = _run_logged(work, host)
            for number, (wanted, found) in enumerate(zip(script, again, strict=False)):
                if wanted != found:
                    raise CaptureError(f"Operation {number} was captured as {wanted}, but is {found} now.")
            if len(script) != len(again):
                raise CaptureError(f"{len(script)} operations were captured, but there are {len(again)} now.")
            return result.copy_(new)

        return replay


def _run_logged(work: Callable[[], Tensor], host: Sequence[Tensor]) -> tuple[list[str], Tensor]:
    script = _OperationLog(host)
    with script:
        result = work()
    return script.lines, result


class _OperationLog(TorchDispatchMode):
    """Writes down every operation: its name, its tensors (address, or "new" of what the work made), its numbers."""

    def __init__(self, host: Sequence[Tensor]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._host = {_storage(tensor) for tensor in host}
        self._made: dict[int, torch.UntypedStorage] = {}  # holds them, so that no address is used twice

    def __torch_dispatch__(
        self, op: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do one operation."""
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if given and all(_storage(tensor) in self._host for tensor in given):
            return op(*args, **kwargs)
        _refuse(op, given)
        self.lines.append(f"{op}({', '.join(self._seen(leaf) for leaf in leaves)})")
        outer = {_storage(tensor) for tensor in given} - self._made.keys()
        result = op(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage(tensor) not in outer:
                self._made[_storage(tensor)] = tensor.untyped_storage()
        return result

    def _seen(self, leaf: Any) -> str:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        where = "new" if _storage(leaf) in self._made else hex(leaf.data_ptr())
        return f"{where} {str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}/{list(leaf.stride())}"


def _refuse(op: Any, given: Sequence[Tensor]) -> None:
    """Raise `CaptureError` where a CUDA graph would fail or go wrong."""
    name = op.overloadpacket.__name__
    masks = name in ("index", "index_put", "index_put_") and any(t.dtype == torch.bool for t in given[1:])
    if name in HOST_READS or masks or (name == "repeat_interleave" and "Tensor" in op._overloadname):
        raise CaptureError(f"{op} makes the host wait for the device.")
    if name in HOST_SENDS or (name == "where" and "Scalar" in op._overloadname):
        raise CaptureError(f"{op} sends a number of the host to the device while it runs.")
    if name in RANDOM_OPS:
        raise CaptureError(f"{op} draws random numbers.")


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
