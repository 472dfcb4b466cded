"""Reads a TFLite file: its operators in order, and the constants that they use.

A TFLite file is a FlatBuffer. Only what `convert` needs of it is read, so that no further library is needed. The
numbers of the fields are those of TensorFlow's schema.fbs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import CheckpointError

NAMES = {
    0: "add",
    1: "mean",
    3: "conv",
    4: "depthwise",
    6: "widen",
    14: "sigmoid",
    18: "mul",
    19: "relu",
    23: "resize",
    40: "mean",
    117: "hard_swish",
}
"""The schema's numbers of builtin operators, and what they are called here. 1 is an average over the whole picture."""

_TYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4")}


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One operator of the graph.

    Attributes:
        kind: a value of `NAMES`, or the name of a custom operator.
        inputs, outputs: numbers of tensors.
        shapes: the shape of every input.
        shape: the shape of the output.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The first subgraph of a TFLite file.

    Attributes:
        description: the file's own.
        inputs, outputs: numbers of the graph's tensors.
        operators: in the order in which they are computed.
        constants: by the number of their tensor.
    """

    description: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]
    constants: dict[int, np.ndarray]


def read(data: bytes) -> Graph:
    """The graph of a file.

    Raises:
        CheckpointError: it is no TFLite file, or holds what is not known here.
    """
    if data[4:8] != b"TFL3":
        raise CheckpointError("This is no TFLite file.", "Take the .tflite file out of the package.")
    try:
        return _graph(_Table(data, _offset(data, 0)))
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"The TFLite file cannot be read: {error!r}.", "Take an undamaged file.") from error


def _graph(model: _Table) -> Graph:
    subgraph = model.tables(2)[0]
    codes = [_name(code) for code in model.tables(1)]
    buffers = [buffer.bytes(0) for buffer in model.tables(4)]
    tensors = subgraph.tables(0)
    shapes = [tensor.integers(0) for tensor in tensors]
    constants = {
        number: np.frombuffer(content, dtype=_TYPES[tensor.byte(1)]).reshape(shapes[number])
        for number, tensor in enumerate(tensors)
        if (content := buffers[tensor.integer(2)])
    }
    operators = []
    for row in subgraph.tables(3):
        inputs, outputs = row.integers(1), row.integers(2)
        found = tuple(shapes[number] for number in inputs)
        operators.append(Operator(codes[row.integer(0)], inputs, outputs, found, shapes[outputs[0]]))
    description = model.bytes(3).decode()
    return Graph(description, subgraph.integers(1), subgraph.integers(2), tuple(operators), constants)


def _name(code: _Table) -> str:
    if custom := code.bytes(1):
        return custom.decode()
    return NAMES[max(code.byte(0), code.integer(3))]


def _offset(data: bytes, at: int) -> int:
    found: int = struct.unpack_from("<I", data, at)[0]
    return at + found


class _Table:
    """A FlatBuffer table at a place of the data."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        (back,) = struct.unpack_from("<i", data, at)
        self._vtable = at - back

    def _field(self, number: int) -> int:
        """Where a field is; 0 if it has its default."""
        (size,) = struct.unpack_from("<H", self._data, self._vtable)
        if 4 + 2 * number >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self._data, self._vtable + 4 + 2 * number)
        return self._at + offset if offset else 0

    def byte(self, number: int) -> int:
        where = self._field(number)
        return self._data[where] if where else 0

    def integer(self, number: int) -> int:
        where = self._field(number)
        return int(struct.unpack_from("<I", self._data, where)[0]) if where else 0

    def _vector(self, number: int) -> tuple[int, int]:
        """Where the elements begin, and how many there are."""
        where = self._field(number)
        if not where:
            return 0, 0
        start = _offset(self._data, where)
        return start + 4, int(struct.unpack_from("<I", self._data, start)[0])

    def integers(self, number: int) -> tuple[int, ...]:
        start, count = self._vector(number)
        return struct.unpack_from(f"<{count}i", self._data, start)

    def bytes(self, number: int) -> bytes:
        start, count = self._vector(number)
        return self._data[start : start + count]

    def tables(self, number: int) -> list[_Table]:
        start, count = self._vector(number)
        return [_Table(self._data, _offset(self._data, start + 4 * n)) for n in range(count)]
