"""Ember's trained weights: one safetensors file in the package, in fp16."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.errors import CheckpointError, WeightsMissingError

WEIGHTS = Path(__file__).with_name("ember.safetensors")
"""One file with the parts dit, words and codec; each tensor's name starts with its part."""


def write(parts: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Write the tensors of all parts to a file, in fp16."""
    flat = {f"{part}.{name}": t.half().contiguous() for part, tensors in parts.items() for name, t in tensors.items()}
    save_file(flat, path)
    path.chmod(0o644)


def read(module: nn.Module, part: str, path: Path = WEIGHTS) -> None:
    """Load one part strictly into a module, keep the module's type, and switch it to evaluation mode.

    Raises:
        WeightsMissingError: if the file does not exist.
        CheckpointError: if it is damaged or holds another network.
    """
    if not path.exists():
        raise WeightsMissingError(f"Ember's weights are not at {path}.", "Reinstall Tidecast.")
    try:
        flat = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", "Reinstall Tidecast.") from None
    prefix = part + "."
    tensors = {name.removeprefix(prefix): t.float() for name, t in flat.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not hold this {part}: {error}.", "Reinstall Tidecast.") from None
    module.eval().requires_grad_(False)
