"""Loads released checkpoints, in every layout in use, into a network on the meta device. Strict, with memory mapping.

Layouts: a safetensors file, safetensors shards with an index, a folder with either, and PyTorch pickles (loaded with
`weights_only`). A pickle may hold the network under one of the keys `ENTRIES` or at the top level, with or without the
prefix `model.` (StreamDiffusionV2, Self-Forcing, LongLive).
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialised
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import MAX_LISTED, CheckpointError, listing
from engine.models.wan21 import read_only

ENTRIES = ("generator", "generator_ema", "generator_lora", "state_dict")
"""Keys under which a pickle may hold the network, in the order in which they are tried."""

UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    SafetensorError,
    pickle.UnpicklingError,
)
"""What the libraries raise for a file that is damaged, or none of theirs."""

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""Parts of tensor names that come from wrappers used in training."""


def read(path: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """Tensors of a checkpoint, memory-mapped where the format allows it, by name without wrappers and prefix.

    On Windows, tensors that are mapped must not be written to (see `read_only`).

    Args:
        path: a checkpoint file, an index of shards, or a folder with one of them.
        ema: whether to prefer the averaged weights ("generator_ema") if a pickle has both.

    Raises:
        CheckpointError: if there is no checkpoint, or it cannot be read.
    """
    if path.is_dir():
        path = _only_checkpoint(path)
    if path.name.endswith(".index.json"):
        return _without_prefix(_read_shards(path))
    if path.suffix == ".safetensors":
        return _without_prefix(_read_safetensors(path))
    entries = sorted(ENTRIES, key=lambda entry: entry != "generator_ema") if ema else ENTRIES
    return _without_prefix(_read_pickle(path, entries))


def parsed(contents: bytes, path: Path) -> dict[str, Tensor]:
    """As `read`, but of a file that has been read into memory: nothing is mapped.

    Args:
        contents: the contents of the file.
        path: the file, for its format and for messages.

    Raises:
        CheckpointError: if it is no checkpoint.
    """
    try:
        if path.suffix == ".safetensors":
            return _without_prefix(deserialised(contents))
        content = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    return _without_prefix(_entry(content, path, ENTRIES))


def load(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Assign these tensors to the parameters of a network, which may be on the meta device.

    The tensors are not copied, converted or moved; that is up to the caller.

    Args:
        network: the network.
        tensors: exactly one tensor per entry of its state dict.
        source: name of the checkpoint for the error message.

    Raises:
        CheckpointError: if names or shapes differ; the message lists them.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = [
        listing("missing", sorted(expected.keys() - found.keys())),
        listing("unexpected", sorted(found.keys() - expected.keys())),
        listing(
            "of another shape",
            [
                f"{name} {list(found[name])} instead of {list(expected[name])}"
                for name in sorted(expected.keys() & found.keys())
                if expected[name] != found[name]
            ],
        ),
    ]
    if any(faults):
        raise CheckpointError(
            f"{source} does not hold this network: {'; '.join(f for f in faults if f)}.",
            "Check that the file belongs to the chosen model (tidecast models verify NAME).",
        )
    network.load_state_dict(dict(tensors), strict=True, assign=True)


def shape_of(tensors: Mapping[str, Tensor], name: str, source: str) -> tuple[int, ...]:
    """Shape of one tensor, to derive the sizes of a network from.

    Raises:
        CheckpointError: if there is no such tensor.
    """
    if name not in tensors:
        raise CheckpointError(
            f"{source} has no tensor {name!r}; it has {', '.join(sorted(tensors)[:MAX_LISTED]) or 'none'}.",
            "Check that the file belongs to the chosen model (tidecast models verify NAME).",
        )
    return tuple(tensors[name].shape)


def _only_checkpoint(folder: Path) -> Path:
    for pattern in ("*.safetensors.index.json", "*.safetensors", "*.pt", "*.pth"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found[:MAX_LISTED])
            raise CheckpointError(f"{folder} holds several checkpoints ({names}).", "Choose one of them.")
    raise CheckpointError(f"{folder} holds no checkpoint.", "Get one with: tidecast models pull NAME.")


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of shards ({error!r}).") from None
    files = sorted(set(shards.values()))
    absent = [name for name in files if not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index.parent} lacks {len(absent)} of {len(files)} shards: {', '.join(absent[:MAX_LISTED])}.",
            "Get them with: tidecast models pull NAME.",
        )
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors |= _read_safetensors(index.parent / name)
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_only.safetensors(path) if read_only.WANTED else load_file(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


def _read_pickle(path: Path, entries: Sequence[str]) -> dict[str, Tensor]:
    try:
        mapped = zipfile.is_zipfile(path)  # the format before PyTorch 1.6 cannot be memory-mapped
        if mapped and read_only.WANTED:
            content = read_only.pickle(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    return _entry(content, path, entries)


def _entry(content: object, path: Path, entries: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a pickle, from the first of these entries that it has, or from the top level."""
    if isinstance(content, Mapping):
        content = next((content[entry] for entry in entries if entry in content), content)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a network's tensors.")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path} holds more than tensors ({', '.join(others[:MAX_LISTED])}), "
            f"and no network under {', '.join(ENTRIES)}."
        )
    return dict(content)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return CheckpointError(
        f"{path} cannot be read ({reason[0]}).",
        "It may be incomplete or damaged. Check it with: tidecast models verify NAME.",
    )


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {name: _unwrapped(name) for name in tensors}
    if names and all(name.startswith("model.") for name in names.values()):
        names = {name: bare.removeprefix("model.") for name, bare in names.items()}
    return {names[name]: tensor for name, tensor in tensors.items()}


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name
