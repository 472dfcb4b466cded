"""What a LoRA file adds to each parameter of a network: read from its tensors, and checked against the network.

W = W0 + s D for every parameter that the file changes, with the strength s. D is the product of two narrow matrices,
or a whole tensor: a difference that the file holds, one that is computed here once from its factors (LoKr, LoHa,
convolutions of low rank), or one that depends on W0 (DoRA, which is exact at s = 1 and in between on the straight line
from W0). The last is computed by whoever merges it (`difference`), since only there W0 is known for certain: what is
read beside a running stream may not look at weights that are being merged.

Shape letters: O outputs, I inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from engine.errors import CheckpointError, listing
from engine.network.lora.keys import sort
from engine.network.lora.names import Layout, ModuleNames
from engine.network.lora.scale import Scales

REMEDY = "Choose a LoRA that was made for this model (tidecast models lora FILE)."

ALL = slice(None)
"""All rows of a weight."""

KNOWN_WIDTHS = {256: "Ember", 1536: "Wan 1.3B", 3072: "Wan2.2 5B", 5120: "Wan 14B"}
"""Widths of the networks that most files are made for."""


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What is added to one parameter at strength 1.

    Attributes:
        down: [R, I]; `scale` times `up` times `down` is added. Inputs of a convolution are flattened.
        up: [O, R].
        scale: alpha / rank.
        dense: a whole tensor of the parameter's shape that is added too.
        magnitude: for DoRA (arXiv 2402.09353), the lengths that the outputs of V are scaled to, or its inputs, where V
            is W0 with all of the above added.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    scale: float = 1.0
    dense: Tensor | None = None
    magnitude: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether it is more than the product of two narrow matrices."""
        return self.dense is not None or self.magnitude is not None

    @property
    def by_output(self) -> bool:
        """Whether the lengths of a DoRA are those of the outputs; else they are those of the inputs."""
        tensor = self.dense if self.up is None else self.up
        if self.magnitude is None or tensor is None:
            return False
        return self.magnitude.shape[0] == self.magnitude.numel() == tensor.shape[0]

    def on(self, device: torch.device) -> Update:
        """The update on a device."""
        down, up, dense, magnitude = (
            None if tensor is None else tensor.to(device) for tensor in (self.down, self.up, self.dense, self.magnitude)
        )
        return Update(down, up, self.scale, dense, magnitude)


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A LoRA that fits a network.

    Attributes:
        source: name of the file.
        updates: what it adds, by the network's parameters.
        ranks: the ranks of its pairs, without repetition.
        left_out: number of keys that are ignored, by what they belong to, such as "image-to-video".
    """

    source: str
    updates: Mapping[str, Update]
    ranks: tuple[int, ...] = ()
    left_out: Mapping[str, int] | None = None

    @property
    def note(self) -> str:
        """What was ignored, for the user; empty if nothing was."""
        parts = [f"{count} {kind} keys ignored" for kind, count in (self.left_out or {}).items()]
        return ", ".join(parts)


def read(
    tensors: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    source: str,
    *,
    scales: Scales | None = None,
    layouts: Sequence[Layout] | None = None,
) -> Lora:
    """Read a LoRA for a network.

    Args:
        tensors: the file's tensors by their keys.
        base: the network's parameters by name. Only their names and shapes are used.
        source: name of the file for messages.
        scales: what its metadata say about alpha.
        layouts: the ways of spelling to try; None for all.

    Raises:
        CheckpointError: if nothing in it is for this network, if it was made for another one, or if it is damaged.
    """
    found = sort(tensors, ModuleNames(base), layouts)
    if not found.modules:
        _refuse_whole(source, list(tensors), found.left_out)
    if found.unknown or found.unreadable:
        faults = [listing("for other networks", found.unknown), listing("of no known layout", found.unreadable)]
        _refuse(source, "; ".join(fault for fault in faults if fault))
    _check_width(source, found.modules, base)
    names, scales = ModuleNames(base), scales or Scales()
    updates: dict[str, Update] = {}
    ranks: list[int] = []
    for module, parts in found.modules.items():
        try:
            made, rank = _of_module(module, parts, names.parameters[module], base, scales, found.spelled[module])
        except (ValueError, RuntimeError) as error:
            _refuse(source, f"{found.spelled[module]}: {error}")
        updates |= made
        ranks += [rank] if rank and rank not in ranks else []
    return Lora(source, updates, tuple(sorted(ranks)), dict(found.left_out))


def _of_module(
    module: str,
    parts: Mapping[str, Tensor],
    parameters: Mapping[str, str],
    base: Mapping[str, Tensor],
    scales: Scales,
    spelled: str,
) -> tuple[dict[str, Update], int]:
    """The updates of one module's parameters, and the rank of its pair (0 without one).

    Raises:
        ValueError, RuntimeError: if the tensors do not belong together, or do not fit the parameters.
    """
    if "whole" in parts:
        raise ValueError("it holds whole weights (set_weight) instead of differences")
    updates: dict[str, Update] = {}
    alpha = float(parts["alpha"]) if "alpha" in parts and not parts["alpha"].is_meta else None
    rank = 0
    target = parameters.get("weight")
    if any(role in parts for role in ("down", "up", "mid", "lokr_w1", "lokr_w1_a", "lokr_w2", "hada_w1_a")):
        if target is None:
            raise ValueError(f"{module} has no weight")
        weight = base[target]
        if "down" in parts or "up" in parts or "mid" in parts:
            for role in ("down", "up"):
                if role not in parts:
                    raise ValueError(f"one half of the pair is missing ({role})")
            rank = parts["down"].shape[0]
            update = _pair(parts, weight, scales.of(spelled, rank, alpha))
        else:
            update = Update(dense=_decomposed(parts, weight, alpha))
        if "magnitude" in parts:
            _check_lengths(parts["magnitude"], weight)
            if "diff" in parts:
                raise ValueError("it holds a whole difference beside the lengths of DoRA")
            update = replace(update, magnitude=parts["magnitude"])
        updates[target] = update
    for role, leaf in (("diff", "weight"), ("diff_bias", "bias"), ("up_bias", "bias"), ("diff_modulation", "")):
        if role not in parts:
            continue
        name = parameters.get(leaf) or parameters.get("modulation")
        if name is None:
            raise ValueError(f"{module} has no {leaf or 'modulation'}")
        updates[name] = _plus(updates.get(name, Update()), parts[role], base[name])
    return updates, rank


def _pair(parts: Mapping[str, Tensor], weight: Tensor, scale: float) -> Update:
    """The update of a pair; for a convolution flattened, and with a kernel between its halves whole."""
    down, up = parts["down"], parts["up"]
    if "mid" in parts:
        kernel = parts["mid"].float()
        whole = torch.einsum("oa,ab...,bi->oi...", up.flatten(1).float(), kernel, down.flatten(1).float())
        return Update(dense=_shaped(whole * scale, weight))
    down_RI, up_OR = down.flatten(1), up.flatten(1)
    outputs, inputs = weight.shape[0], weight[0].numel() if weight.dim() > 1 else 1
    if up_OR.shape != (outputs, down_RI.shape[0]) or down_RI.shape[1] != inputs:
        raise ValueError(f"the weight is {list(weight.shape)}, the pair {list(up.shape)} x {list(down.shape)}")
    return Update(down_RI, up_OR, scale)


def _decomposed(parts: Mapping[str, Tensor], weight: Tensor, alpha: float | None) -> Tensor:
    """The whole update of LoKr or LoHa, fp32."""
    kronecker = any(role.startswith("lokr") for role in parts)
    first, second = ("lokr_w1", "lokr_w2") if kronecker else ("hada_w1", "hada_w2")
    kernels = (None, parts.get("lokr_t2")) if kronecker else (parts.get("hada_t1"), parts.get("hada_t2"))
    factors, rank = [], 0
    for name, kernel in zip((first, second), kernels, strict=True):
        factor, own = _factor(parts, name, kernel)
        factors.append(factor)
        rank = rank or own
    scale = alpha / rank if alpha and rank else 1.0
    w1, w2 = factors
    if not kronecker:
        return _shaped(w1 * w2 * scale, weight)
    w1 = w1.reshape(*w1.shape, *(1,) * (w2.dim() - w1.dim()))
    return _shaped(torch.kron(w1, w2) * scale, weight)


def _factor(parts: Mapping[str, Tensor], name: str, kernel: Tensor | None) -> tuple[Tensor, int]:
    """One factor of LoKr or LoHa, whole or as the product of two narrow ones, and its rank (0 for a whole one)."""
    if name in parts:
        return parts[name].float(), 0
    if f"{name}_a" not in parts or f"{name}_b" not in parts:
        raise ValueError(f"the factor {name} is missing")
    a, b = parts[f"{name}_a"].float(), parts[f"{name}_b"].float()
    if kernel is not None:
        return torch.einsum("ab...,ap,br->pr...", kernel.float(), a, b), b.shape[0]
    return a @ b.flatten(1), b.shape[0]


def difference(update: Update, weight: Tensor, rows: slice = ALL, lengths_I: Tensor | None = None) -> Tensor:
    """What a `whole` update adds to W0 at strength 1, fp32: its whole tensor, or V magnitude / |V| - W0 for DoRA.

    Args:
        update: the update, on the weight's device.
        weight: these rows of W0.
        rows: which rows.
        lengths_I: the lengths of the inputs of V over all rows (`input_lengths`), if `rows` are not all of them.
    """
    original = weight.float()
    if update.magnitude is None:
        assert update.dense is not None
        return update.dense[rows].float()
    flat = _unscaled(update, original, rows)
    if update.by_output:
        lengths, wanted = flat.norm(dim=1, keepdim=True), update.magnitude.flatten()[rows, None]
    else:
        whole_I = flat.square().sum(0).sqrt() if lengths_I is None else lengths_I
        lengths, wanted = whole_I[None], update.magnitude.reshape(1, -1)
    return (flat * (wanted.float() / lengths.clamp_min(1e-12))).view(weight.shape) - original


def input_lengths(update: Update, parts: Iterable[tuple[slice, Tensor]]) -> Tensor:
    """The lengths of the inputs of V for a DoRA that scales them, [I].

    Args:
        update: the update, on the weight's device.
        parts: all rows of W0, part by part, each with its place.
    """
    squares = [_unscaled(update, weight.float(), rows).square().sum(0) for rows, weight in parts]
    return torch.stack(squares).sum(0).sqrt()


def _unscaled(update: Update, original: Tensor, rows: slice) -> Tensor:
    """Rows of V of a DoRA: W0 with everything added that is not scaled, [O, I]."""
    whole = original if update.dense is None else original + update.dense[rows].float()
    if update.down is not None and update.up is not None:
        whole = whole + (update.scale * (update.up[rows].float() @ update.down.float())).reshape(whole.shape)
    return whole.flatten(1)


def _check_lengths(magnitude: Tensor, weight: Tensor) -> None:
    """Raises:
    ValueError: if lengths of DoRA are neither those of the weight's outputs nor those of its inputs.
    """
    if weight.dim() < 2:
        raise ValueError("DoRA is for matrices")
    outputs = magnitude.shape[:1] == weight.shape[:1] and magnitude.numel() == weight.shape[0]
    if not outputs and not (weight.dim() == 2 and magnitude.numel() == weight.shape[1]):
        raise ValueError(f"the lengths of DoRA are {list(magnitude.shape)}, the weight {list(weight.shape)}")


def _plus(update: Update, dense: Tensor, parameter: Tensor) -> Update:
    """The update with a whole tensor added."""
    dense = _shaped(dense.float(), parameter)
    if update.dense is not None:
        dense = update.dense + dense
    return Update(update.down, update.up, update.scale, dense)


def _shaped(dense: Tensor, parameter: Tensor) -> Tensor:
    if dense.numel() != parameter.numel():
        raise ValueError(f"the parameter is {list(parameter.shape)}, the update {list(dense.shape)}")
    return dense.reshape(parameter.shape)


def width_of(modules: Mapping[str, Mapping[str, Tensor]]) -> int:
    """The width of the network that a file was made for, from the inputs of its attention; 0 if it is not known."""
    for module, parts in modules.items():
        if module.endswith("self_attn.q") and "down" in parts:
            return int(parts["down"].shape[1])
    return 0


def named(width: int) -> str:
    """A width as text, with the name of its network if it is known."""
    name = KNOWN_WIDTHS.get(width)
    return f"{width} ({name})" if name else str(width)


def _check_width(source: str, modules: Mapping[str, Mapping[str, Tensor]], base: Mapping[str, Tensor]) -> None:
    """Raises:
    CheckpointError: if the file was made for a network of another width.
    """
    made_for = width_of(modules)
    weight = next((tensor for name, tensor in base.items() if name.endswith("self_attn.q.weight")), None)
    if made_for and weight is not None and made_for != weight.shape[1]:
        raise CheckpointError(
            f"{source} was made for a network of width {named(made_for)}; this one's width is "
            f"{named(weight.shape[1])}.",
            REMEDY,
        )


def _refuse_whole(source: str, keys: Sequence[str], left_out: Mapping[str, int]) -> NoReturn:
    """Raises:
    CheckpointError: because nothing in the file is for this network.
    """
    if left_out:
        only = " and ".join(left_out)
        raise CheckpointError(f"{source} changes only {only} layers, which this network does not have.", REMEDY)
    names = listing("of no known layout", sorted(keys)) or "it is empty"
    raise CheckpointError(f"{source} is not a LoRA for this network: {names}.", REMEDY)


def _refuse(source: str, reason: str) -> NoReturn:
    """Raises:
    CheckpointError: because of a fault in the file.
    """
    raise CheckpointError(f"{source} is not a LoRA for this network: {reason}.", REMEDY)
