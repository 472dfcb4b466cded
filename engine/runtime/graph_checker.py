"""Checks on a CPU whether work could be captured in a CUDA graph and replayed correctly.

A CUDA graph repeats the same kernels at the same addresses with the same arguments, without the host. This backend runs
the work again at each replay. At the capture it logs every operation, and at each replay it compares the operations
with the log. It raises `CaptureError` for everything that a graph cannot capture or would silently get wrong.

It does not see operations inside compiled code, nor copies between devices, since a CPU is one device.
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
"""Operations with which the host reads values from the device, and waits for it."""

HOST_SENDS = ("lift_fresh", "lift", "scalar_tensor")
"""Operations that copy values from the host to the device."""

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
"""Operations that draw random numbers: in a graph they would not use the stream's own generator."""


class GraphChecker:
    """A `Backend` of `graph_capture` that checks on a CPU what a CUDA graph requires."""

    outlives_failure = True

    def capture(self, work: Callable[[], Tensor], host: Sequence[Tensor] = ()) -> Callable[[], Tensor]:
        """Run the work once and log its operations.

        Args:
            work: uses only tensors that keep their addresses, and returns a new tensor.
            host: tensors that are in host memory on every machine; the work may read and write them.

        Returns:
            A function that runs the work again and returns the same tensor each time.

        Raises:
            CaptureError: if a CUDA graph could not capture the work; in a replay, if its operations have changed.
        """
        captured, result = _run_logged(work, host)

        def replay() -> Tensor:
            replayed, new = _run_logged(work, host)
            for number, (wanted, found) in enumerate(zip(captured, replayed, strict=False)):
                if wanted != found:
                    raise CaptureError(f"Operation {number} was captured as {wanted}, but is {found} now.")
            if len(captured) != len(replayed):
                raise CaptureError(f"{len(captured)} operations were captured, but there are {len(replayed)} now.")
            return result.copy_(new)

        return replay


def _run_logged(work: Callable[[], Tensor], host: Sequence[Tensor]) -> tuple[list[str], Tensor]:
    """Run the work: its log and its result."""
    log = _OperationLog(host)
    with log:
        result = work()
    return log.lines, result


class _OperationLog(TorchDispatchMode):
    """Logs every operation: its name, its tensors (address, or "new" if the work made them) and other arguments."""

    def __init__(self, host: Sequence[Tensor]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._host = {_storage(tensor) for tensor in host}
        self._made: dict[int, torch.UntypedStorage] = {}  # keeps the storages alive, so that no address is reused

    def __torch_dispatch__(
        self, op: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run and log one operation."""
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if given and all(_storage(tensor) in self._host for tensor in given):
            return op(*args, **kwargs)
        _check_capturable(op, given)
        self.lines.append(f"{op}({', '.join(self._describe(leaf) for leaf in leaves)})")
        outer = {_storage(tensor) for tensor in given} - self._made.keys()
        result = op(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage(tensor) not in outer:
                self._made[_storage(tensor)] = tensor.untyped_storage()
        return result

    def _describe(self, leaf: Any) -> str:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        where = "new" if _storage(leaf) in self._made else hex(leaf.data_ptr())
        return f"{where} {str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}/{list(leaf.stride())}"


def _check_capturable(op: Any, given: Sequence[Tensor]) -> None:
    """Raises:
    CaptureError: if a CUDA graph cannot capture the operation, or would repeat it incorrectly.
    """
    name = op.overloadpacket.__name__
    masks = name in ("index", "index_put", "index_put_") and any(t.dtype == torch.bool for t in given[1:])
    if name in HOST_READS or masks or (name == "repeat_interleave" and "Tensor" in op._overloadname):
        raise CaptureError(f"{op} makes the host wait for the device.")
    if name in HOST_SENDS or (name == "where" and "Scalar" in op._overloadname):
        raise CaptureError(f"{op} sends a number from the host to the device.")
    if name in RANDOM_OPS:
        raise CaptureError(f"{op} draws random numbers.")


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
