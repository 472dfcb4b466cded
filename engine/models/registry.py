"""The model table, and the way from a row to its parts.

A family is a package of `engine.models` with a module `specs` (its rows, `SPECS`) and a module `build` (its
builders), which is imported only when a model of the family is opened. Must not know streams or sessions.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import torch

from engine.errors import ModelError
from engine.models.spec import Codec, ModelSpec, TextEncoder
from engine.network.dit import CausalDiT

FAMILIES = ("ember", "wan21")
"""Packages of `engine.models` that have rows."""

Files = Mapping[str, Path]
"""Local path of each role's file; a role without one gets seeded random weights (for tests and timings)."""


class Builder(Protocol):
    """What a family's module `build` offers."""

    def build_dit(self, spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files) -> CausalDiT:
        """The network, on its device."""
        ...

    def build_codec(self, spec: ModelSpec, which: str, device: torch.device, dtype: torch.dtype, files: Files) -> Codec:
        """The video autoencoder: `which` is a name in `spec.CODECS`."""
        ...

    def build_text(
        self, spec: ModelSpec, device: torch.device, files: Files, *, where: str = "auto", storage: str = "bfloat16"
    ) -> TextEncoder:
        """The text encoder, at `where` as in `Config.text_device`, held as in `Config.text_weights`."""
        ...


def _table() -> dict[str, ModelSpec]:
    rows: dict[str, ModelSpec] = {}
    for family in FAMILIES:
        for spec in importlib.import_module(f"engine.models.{family}.specs").SPECS:
            rows[spec.name] = spec
    return rows


REGISTRY: dict[str, ModelSpec] = _table()
"""Every model by name."""


def get(name: str) -> ModelSpec:
    """The row of this name.

    Raises:
        ModelError: if there is none; names those there are.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise ModelError(f"There is no model named {name!r}.", f"Choose one of {', '.join(REGISTRY)}.") from None


def builder(spec: ModelSpec) -> Builder:
    """The builders of the row's family."""
    return cast(Builder, importlib.import_module(f"engine.models.{spec.family}.build"))
