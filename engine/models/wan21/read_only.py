"""Maps checkpoint files into memory for reading only. Used on Windows, where torch's own mapping costs memory.

Torch and safetensors map a file copy-on-write. Windows then charges memory for all of it ("commit"), since all of it
could be written to: 28.6 GB for 14B, although the pages are only read. A mapping that cannot be written to is not
charged. Writing to such a tensor would end the process, so whoever changes weights copies them first.
"""

from __future__ import annotations

import json
import mmap
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

WANTED = sys.platform == "win32"
"""Whether checkpoints are mapped in this way."""

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""Types by their names in safetensors files."""


def safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file: the length of a JSON header (8 bytes), the header, the data.

    Raises:
        OSError, ValueError, KeyError, TypeError: if it cannot be read or is no such file.
    """
    mapped = _mapped(path)
    data = 8 + int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[8:data])
    header.pop("__metadata__", None)
    return {
        name: _tensor(mapped, DTYPES[entry["dtype"]], data + entry["data_offsets"][0], entry["shape"])
        for name, entry in header.items()
    }


def pickle(path: Path) -> Any:
    """What a file of `torch.save` holds, as `torch.load` with `weights_only` returns it.

    Raises:
        OSError, RuntimeError, ValueError, pickle.UnpicklingError: as `torch.load`, or if the file ends too early.
    """
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # takes a second to load

    with FakeTensorMode():  # reads no data, and notes where each storage begins in the file
        content = torch.load(path, map_location="cpu", weights_only=True)
    mapped = _mapped(path)

    def tensor(fake: Any) -> Tensor:
        begin = fake.untyped_storage()._checkpoint_offset + fake.storage_offset() * fake.element_size()
        return _tensor(mapped, fake.dtype, begin, fake.shape, fake.stride())

    return tree_map_only(FakeTensor, tensor, content)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _tensor(
    mapped: mmap.mmap, dtype: torch.dtype, begin: int, shape: Sequence[int], stride: Sequence[int] | None = None
) -> Tensor:
    """The tensor that begins at this byte; contiguous if no stride is given."""
    meta = torch.empty(shape, dtype=dtype, device="meta")
    if not meta.numel():
        return torch.empty(shape, dtype=dtype)
    stride = stride or meta.stride()
    spanned = 1 + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that it cannot be written to
        flat = torch.frombuffer(mapped, dtype=dtype, count=spanned, offset=begin)
    return flat.as_strided(shape, stride)
