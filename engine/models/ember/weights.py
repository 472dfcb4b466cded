"""Ember's trained weights: one safetensors file in the package, half precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.errors import CheckpointError, WeightsMissingError

WEIGHTS = Path(__file__).with_name("ember.safetensors")
"""Three parts in one file; a tensor's name begins with its part: dit, words, codec."""


def write(parts: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Write the parts' tensors in fp16."""
    flat = {f"{part}.{name}": t.half().contiguous() for part, tensors in parts.items() for name, t in tensors.items()}
    save_file(flat, path)
    path.chmod(0o644)


def read(module: nn.Module, part: str, path: Path = WEIGHTS) -> None:
    """Load one part into a module, strictly, in the module's own type.

    Raises:
        WeightsMissingError: if there is no file.
        CheckpointError: if it is damaged or holds another network.
    """
    if not path.exists():
        raise WeightsMissingError(f"Ember's weights are not at {path}.", "Install Tidecast again.")
    try:
        flat = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", "Install Tidecast again.") from None
    prefix = part + "."
    tensors = {name.removeprefix(prefix): t.float() for name, t in flat.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not hold this {part}: {error}.", "Install Tidecast again.") from None
    module.eval().requires_grad_(False)
