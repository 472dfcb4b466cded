"""The model table, and the way from a row to its parts.

A family is a package with a module `specs` (its rows, `SPECS`) and a module `build` (its builders), which is imported
only when a model of the family is opened. Those of `engine.models` are there from the start; `register` adds others
(`Config.families` names them; their rows' `family` is the package's full name). Must not know streams or sessions.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import torch

from engine.errors import ModelError
from engine.models.spec import Codec, ModelSpec, TextEncoder
from engine.network.protocol import StreamingNetwork

FAMILIES = ("engine.models.ember", "engine.models.wan21")
"""Packages that have rows; `register` adds others."""

Files = Mapping[str, Path]
"""Local path of each role's file; a role without one gets seeded random weights (for tests and timings).

Adapters are `adapter.0`, `adapter.1`, ... in the order in which they are added.
"""


class Builder(Protocol):
    """What a family's module `build` offers."""

    def build_network(
        self, spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files
    ) -> StreamingNetwork:
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


REGISTRY: dict[str, ModelSpec] = {}
"""Every model by name."""


def register(package: str) -> None:
    """Add the rows of a family: a package with modules `specs` and `build`, by its full name. May be called again.

    Raises:
        ModelError: if there is no such family, or a row's name is taken.
    """
    try:
        rows: tuple[ModelSpec, ...] = importlib.import_module(f"{package}.specs").SPECS
    except (ImportError, AttributeError) as error:
        remedy = "It needs a module specs with SPECS."
        raise ModelError(f"{package} is no family of models ({error}).", remedy) from None
    for spec in rows:
        if REGISTRY.setdefault(spec.name, spec) is not spec:
            raise ModelError(f"{package} has a model {spec.name!r}, but there is one already.", "Give it another name.")


for _family in FAMILIES:
    register(_family)


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
    package = spec.family if "." in spec.family else f"engine.models.{spec.family}"
    return cast(Builder, importlib.import_module(f"{package}.build"))


def adapters(spec: ModelSpec, files: Files) -> list[tuple[Path, float]]:
    """The adapters among these files with their strengths, in the order in which they are added."""
    strengths = [file.strength for file in spec.files if file.role == "adapter"]
    numbers = sorted(int(role.removeprefix("adapter.")) for role in files if role.startswith("adapter."))
    return [(files[f"adapter.{n}"], strengths[n] if n < len(strengths) else 1.0) for n in numbers]
