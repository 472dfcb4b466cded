"""The scale of a LoRA's updates: alpha / rank, with alpha from the file's keys, its metadata, or a file beside it.

Without an alpha anywhere, the scale is 1. rs-LoRA (arXiv 2312.03732) divides by the square root of the rank instead;
only metadata says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PEFT = "lora_adapter_metadata"
"""Key of the safetensors metadata in which diffusers stores the configuration of the library peft."""


@dataclass(frozen=True, slots=True)
class Scales:
    """Where alpha comes from for modules whose keys have none.

    Attributes:
        alpha: for all modules; None for the rank.
        patterns: alpha of the modules whose name in the file ends as the regular expression says.
        square_root: whether to divide by the square root of the rank (rs-LoRA).
    """

    alpha: float | None = None
    patterns: Mapping[str, float] = field(default_factory=dict)
    square_root: bool = False

    def of(self, spelled: str, rank: int, alpha: float | None) -> float:
        """The scale of one module.

        Args:
            spelled: its name in the file.
            rank: its rank.
            alpha: alpha from the file's keys, which comes first; 0 means the rank, as in musubi-tuner.
        """
        if alpha is None:
            own = (value for pattern, value in self.patterns.items() if re.search(rf"(^|\.){pattern}$", spelled))
            alpha = next(own, self.alpha)
        if not alpha:
            alpha = float(rank)
        return alpha / (rank**0.5 if self.square_root else rank)


def scales_of(metadata: Mapping[str, str], adapter_config: Mapping[str, Any] | None = None) -> Scales:
    """What a file's metadata, and an `adapter_config.json` of the library peft beside it, say about alpha."""
    peft = _peft(metadata.get(PEFT, "")) or adapter_config
    if peft:
        patterns = {str(name): float(value) for name, value in (peft.get("alpha_pattern") or {}).items()}
        alpha = peft.get("lora_alpha")
        return Scales(None if alpha is None else float(alpha), patterns, bool(peft.get("use_rslora", False)))
    try:
        return Scales(float(metadata["ss_network_alpha"]))
    except (KeyError, ValueError):
        return Scales()


def _peft(text: str) -> dict[str, Any]:
    """The configuration of the network in the metadata, where the keys begin with the component, `transformer.r`."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key.removeprefix("transformer."): value for key, value in found.items()}
