"""The model table, and the builders that turn a row into a network, a codec and a text encoder.

A family is a package with a module `specs` (its rows, `SPECS`) and a module `build` (a `Builder`), which is imported
only when a model of the family is opened. The bridge reads the rows too, so neither `specs` nor this module loads
torch. The families of `engine.models` are always registered; `register` adds others (`Config.families` names them; the
`family` of their rows is the package's full name).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from engine.errors import ModelError
from engine.models.spec import Codec, ModelSpec, TextEncoder

if TYPE_CHECKING:
    import torch

    from engine.network.protocol import StreamingNetwork

FAMILIES = ("engine.models.ember", "engine.models.wan21")
"""Packages of the built-in families."""

Files = Mapping[str, Path]
"""Local path of the file for each role (see `WeightFile`). A part without a file gets seeded random weights, for tests
and benchmarks. Adapters have the roles `adapter.0`, `adapter.1`, ... in the order in which they are added.
"""


class Builder(Protocol):
    """The functions of a family's module `build`."""

    def build_network(
        self, spec: ModelSpec, device: torch.device, dtype: torch.dtype, files: Files
    ) -> StreamingNetwork:
        """The network, in evaluation mode, on `device`, with the adapters in `files`.

        Raises:
            ModelError: if there are adapters and the family takes none.
        """
        ...

    def build_codec(self, spec: ModelSpec, which: str, device: torch.device, dtype: torch.dtype, files: Files) -> Codec:
        """The video autoencoder `which`, a name in `engine.models.spec.CODECS`."""
        ...

    def build_text(
        self, spec: ModelSpec, device: torch.device, files: Files, *, where: str = "auto", storage: str = "bfloat16"
    ) -> TextEncoder:
        """The text encoder; `where` it runs is as in `Config.text_device`, `storage` as in `Config.text_weights`."""
        ...


REGISTRY: dict[str, ModelSpec] = {}
"""All models by name."""


def register(package: str) -> None:
    """Add the rows of a family to the table; idempotent.

    Args:
        package: full name of a package with the modules `specs` and `build`.

    Raises:
        ModelError: if there is no such package, or another family has a model of the same name.
    """
    try:
        rows: tuple[ModelSpec, ...] = importlib.import_module(f"{package}.specs").SPECS
    except (ImportError, AttributeError) as error:
        remedy = "The package needs a module specs with a tuple SPECS."
        raise ModelError(f"{package} is not a family of models ({error}).", remedy) from None
    for spec in rows:
        if REGISTRY.setdefault(spec.name, spec) is not spec:
            raise ModelError(f"{package} has a model {spec.name!r}, but that name is taken.", "Give it another name.")


for _family in FAMILIES:
    register(_family)


def get(name: str) -> ModelSpec:
    """The row of the model with this name.

    Raises:
        ModelError: if there is none; the remedy lists the existing ones.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise ModelError(f"There is no model named {name!r}.", f"Choose one of {', '.join(REGISTRY)}.") from None


def builder(spec: ModelSpec) -> Builder:
    """The module `build` of the row's family."""
    package = spec.family if "." in spec.family else f"engine.models.{spec.family}"
    return cast(Builder, importlib.import_module(f"{package}.build"))


def adapters(spec: ModelSpec, files: Files) -> list[tuple[Path, float]]:
    """The adapters among these files as (path, strength), in the order in which they are added."""
    strengths = [file.strength for file in spec.files if file.role == "adapter"]
    numbers = sorted(int(role.removeprefix("adapter.")) for role in files if role.startswith("adapter."))
    return [(files[f"adapter.{n}"], strengths[n] if n < len(strengths) else 1.0) for n in numbers]
