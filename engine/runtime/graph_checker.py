"""Checks on a CPU whether work could be captured in a CUDA graph and replayed correctly.

A CUDA graph repeats the same kernels at the same addresses with the same arguments, without the host. This backend runs
the work again at each replay. At the capture it logs every operation, and at each replay it compares the operations
with the log. It raises `CaptureError` for everything that a graph cannot capture or would silently get wrong.

It does not see operations inside compiled code, nor copies between devices, since a CPU is one device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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

BY_MASK = ("index", "index_put", "index_put_")
"""Operations with which the host waits if they are given a mask, whose true elements it has to count."""

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
            if captured != replayed:
                raise CaptureError(_difference(captured, replayed))
            return result.copy_(new)

        return replay


Operation = tuple[Any, ...]
"""A logged operation: which one it is, then a description of every argument."""


def _run_logged(work: Callable[[], Tensor], host: Sequence[Tensor]) -> tuple[list[Operation], Tensor]:
    """Run the work: its log and its result."""
    log = _OperationLog(host)
    with log:
        result = work()
    return log.operations, result


class EagerDispatchMode(TorchDispatchMode):
    """Sees each of torch's operations as it runs. No compiled code gets here."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch wraps `__torch_dispatch__` against compilation, which takes time, unless told otherwise."""
        return False


class _OperationLog(EagerDispatchMode):
    """Logs every operation: its name, its tensors (address, or "new" if the work made them) and other arguments.

    A stream has about two thousand operations a chunk. So what is logged becomes text only if it is to be shown.
    """

    def __init__(self, host: Sequence[Tensor]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._host = {_storage(tensor) for tensor in host}
        self._made: dict[int, torch.UntypedStorage] = {}  # keeps the storages alive, so that no address is reused

    def __torch_dispatch__(
        self, op: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run and log one operation."""
        kwargs, made = kwargs or {}, self._made
        operation: list[Any] = [op]
        given: list[Tensor] = []
        storages: set[int] = set()
        for leaf in _leaves((*args, *kwargs.values())) if kwargs else _leaves(args):
            if isinstance(leaf, Tensor):
                given.append(leaf)
                address = _storage(leaf)
                storages.add(address)
                where = "new" if address in made else leaf.data_ptr()
                operation.append((where, leaf.dtype, leaf.shape, leaf.stride()))
            else:  # as text, since 1 == 1.0 == True, and NaN differs from itself
                operation.append(leaf if leaf.__class__ is int else repr(leaf))
        if storages and storages <= self._host:
            return op(*args, **kwargs)
        _check_capturable(op, given)
        self.operations.append(tuple(operation))
        result = op(*args, **kwargs)
        for tensor in (result,) if isinstance(result, Tensor) else _leaves((result,)):
            if isinstance(tensor, Tensor):
                address = _storage(tensor)
                if address not in storages and address not in made:
                    made[address] = tensor.untyped_storage()
        return result


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Everything in nested lists and tuples, which are all that operations take and return."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            yield value


def _difference(captured: list[Operation], replayed: list[Operation]) -> str:
    """What differs between two logs, for the user."""
    for number, (wanted, found) in enumerate(zip(captured, replayed, strict=False)):
        if wanted != found:
            return f"Operation {number} was captured as {_shown(wanted)}, but is {_shown(found)} now."
    return f"{len(captured)} operations were captured, but there are {len(replayed)} now."


def _shown(operation: Operation) -> str:
    return f"{operation[0]}({', '.join(map(_shown_argument, operation[1:]))})"


def _shown_argument(argument: Any) -> str:
    if not isinstance(argument, tuple):
        return str(argument)
    where, dtype, shape, stride = argument
    address = where if isinstance(where, str) else hex(where)
    return f"{address} {str(dtype).removeprefix('torch.')}{list(shape)}/{list(stride)}"


def _check_capturable(op: Any, given: list[Tensor]) -> None:
    """Raises:
    CaptureError: if a CUDA graph cannot capture the operation, or would repeat it incorrectly.
    """
    trouble = _trouble(op)
    if not trouble and op.overloadpacket.__name__ in BY_MASK and any(t.dtype == torch.bool for t in given[1:]):
        trouble = "makes the host wait for the device"
    if trouble:
        raise CaptureError(f"{op} {trouble}.")


@functools.cache
def _trouble(op: Any) -> str:
    """Why a CUDA graph cannot hold the operation, whatever its arguments; empty if it can."""
    name = op.overloadpacket.__name__
    if name in HOST_READS or (name == "repeat_interleave" and "Tensor" in op._overloadname):
        return "makes the host wait for the device"
    if name in HOST_SENDS or (name == "where" and "Scalar" in op._overloadname):
        return "sends a number from the host to the device"
    return "draws random numbers" if name in RANDOM_OPS else ""


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
