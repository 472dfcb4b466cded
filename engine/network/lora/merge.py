"""Merges LoRAs into the weights of a running network: strengths move like faders, and nothing is captured again.

Every weight W that a LoRA changes keeps a copy W0 of its original, and is always computed from that:
W = W0 + s1 D1 + s2 D2 + ... in one matmul for all LoRAs, written to the address where W lies. So rounding errors do not
add up, any way to the same strengths gives the same bits, and at strength 0 W is W0 again. (An update by differences
would lose small moves of a fader: near 0.02 the step of bfloat16 is 1.2e-4.)

A merge is divided into units, one for each block of the network. `LiveMerge.advance` builds as many units as its time
allows, the longest untouched first, and the newest strengths count. Until all are built, blocks may have different
strengths; each of them is a valid merge.

Shape letters: O outputs, I inputs, R sum of the ranks of all LoRAs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.controls import LORA_SLOTS
from engine.network.lora.branch import Branches
from engine.network.lora.stopwatch import HostStopwatch, Stopwatch
from engine.network.lora.target import Target, matrix
from engine.network.lora.updates import Lora, difference

_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_TEXT = re.compile(r"\.cross_attn\.(k|v|norm_k|o)\.|^text_embedding\.")
_TIME = re.compile(r"^time_(embedding|projection)\.")

OUTSIDE = -1
"""Number of the unit of all parameters outside the blocks."""


@dataclass(slots=True)
class Changed:
    """What `LiveMerge.advance` has changed, beyond weights that are read in every forward.

    Attributes:
        text: blocks whose keys and values of the prompt have to be computed again.
        all_text: whether those of all blocks have to be, since the prompt's embedding has changed.
        time: whether the table of time embeddings has to be computed again.
    """

    text: set[int] = field(default_factory=set)
    all_text: bool = False
    time: bool = False


@dataclass(slots=True, eq=False)
class Unit:
    """The parameters of one block that LoRAs change, merged together.

    Attributes:
        number: the block; `OUTSIDE` for the parameters outside the blocks.
        targets: the parameters, by name.
        built: `LiveMerge.strengths` with which it was built; None if it has to be built in any case.
        turn: when it was built last, in calls of `LiveMerge.advance`.
    """

    number: int
    targets: dict[str, Target] = field(default_factory=dict)
    built: tuple[float, ...] | None = None
    turn: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of its parameters."""
        return sum(target.bytes for target in self.targets.values())


class LiveMerge:
    """The LoRAs of a network and the gradual merge of their strengths.

    Args:
        parameters: the network's parameters by name, which are written in place. They hold no LoRA yet.
        stopwatch: measures how long units take on the device.
        branches: the LoRAs beside layers with 8-bit weights; None if there are none.

    Attributes:
        loras: the loaded LoRAs by slot; None for an empty one.
        target: the strength of each slot that the weights move to.
        units: what is merged together, by number of the block.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        stopwatch: Stopwatch | None = None,
        branches: Branches | None = None,
    ) -> None:
        self._branches = branches
        self._parameters = dict(parameters) | (branches.biases if branches else {})
        self._stopwatch = stopwatch or HostStopwatch()
        self.loras: list[Lora | None] = [None] * LORA_SLOTS
        self.target: tuple[float, ...] = (0.0,) * LORA_SLOTS
        self.units: dict[int, Unit] = {}
        self._targets: dict[str, Target] = {}
        self._turn = 0
        self._loaded: list[int] = []

    @property
    def base(self) -> dict[str, Tensor]:
        """The parameters by name, to read a LoRA for. Their values may hold LoRAs: only names and shapes count."""
        return self._parameters | (self._branches.shapes if self._branches else {})

    @property
    def kept_bytes(self) -> int:
        """Bytes of the originals that are kept, or will be once every unit has been built."""
        return sum(unit.bytes for unit in self.units.values())

    @property
    def due(self) -> int:
        """Number of units that do not have the newest strengths yet."""
        return len(self._due())

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strength of each loaded LoRA that the weights move to; 0 for an empty slot."""
        return tuple(s if lora is not None else 0.0 for s, lora in zip(self.target, self.loras, strict=True))

    def load(self, slot: int, lora: Lora | None) -> None:
        """Put a LoRA into a slot, or empty it. The weights follow with the next calls of `advance`.

        Args:
            slot: 0 to `LORA_SLOTS` - 1.
            lora: a LoRA that was read for `base`; only its updates of parameters in this process are used.

        Raises:
            ModelError: if it cannot be put beside 8-bit weights; then nothing changes.
        """
        if self._branches:
            self._branches.check(slot, self.loras, lora)
        before, self.loras[slot] = self.loras[slot], lora
        self._loaded = [other for other in self._loaded if other != slot] + ([] if lora is None else [slot])
        for name in {*(before.updates if before else ()), *(lora.updates if lora else ())}:
            target = self._targets.get(name) or self._new_target(name)
            if target is None:
                continue
            self._targets[name] = target
            unit = self.units.setdefault(number_of(name), Unit(number_of(name)))
            unit.targets.setdefault(name, target).renew()
            unit.built = None
        if self._branches:
            self._branches.load(self.loras)
            self._branches.set(self.strengths)

    def drop(self) -> int | None:
        """After memory did not suffice for a merge: take out the LoRA that was loaded last; the others are merged anew.

        Every weight is its original again at once, which needs no memory.

        Returns:
            The slot; None if no LoRA is loaded.
        """
        slot = self._loaded[-1] if self._loaded else None
        self.restore()
        if slot is not None:
            self.load(slot, None)
        return slot

    @torch.no_grad()
    def restore(self) -> None:
        """Make every weight its original again. What is loaded is merged anew by the next calls of `advance`."""
        for unit in self.units.values():
            unit.built = None
            for target in unit.targets.values():
                target.restore()

    def set(self, strengths: Sequence[float]) -> None:
        """Set the strengths that the weights are to have."""
        before, self.target = self.target, tuple(strengths)
        if self._branches and self.target != before:
            self._branches.set(self.strengths)

    def advance(self, budget_s: float) -> Changed:
        """Build the units that are due, as far as the time allows but at least one.

        Args:
            budget_s: seconds of the device.
        """
        changed = Changed()
        due = sorted(self._due(), key=lambda unit: unit.turn)
        self._turn += 1
        spent = 0.0
        for number, unit in enumerate(due):
            expected = self._stopwatch.expected(unit.bytes)
            if number and (expected is None or spent + expected > budget_s):
                break
            with self._stopwatch.measured(unit.bytes) as took:
                self._build(unit, changed)
            spent += took() or expected or 0.0
        return changed

    def finish(self) -> Changed:
        """Build all units that are due."""
        return self.advance(float("inf")) if self.units else Changed()

    def _new_target(self, name: str) -> Target | None:
        """How a parameter is merged; None if it is not in this process, or LoRAs can only stand beside it."""
        if name in self._parameters:
            return Target(name, self._parameters[name])
        return self._branches.requantised(name) if self._branches else None

    def _due(self) -> list[Unit]:
        strengths = self.strengths
        return [unit for unit in self.units.values() if unit.built != strengths]

    def _build(self, unit: Unit, changed: Changed) -> None:
        strengths = self.strengths
        for name, target in unit.targets.items():
            target.build(self.loras, strengths)
            if _TIME.search(name):
                changed.time = True
            elif _TEXT.search(name):
                changed.all_text |= unit.number == OUTSIDE
                changed.text.add(unit.number)
        changed.text.discard(OUTSIDE)
        unit.built, unit.turn = strengths, self._turn


def number_of(name: str) -> int:
    """The block that a parameter belongs to; `OUTSIDE` for none."""
    found = _BLOCK.match(name)
    return int(found[1]) if found else OUTSIDE


def merged(base: Mapping[str, Tensor], loras: Iterable[tuple[Lora, float]]) -> dict[str, Tensor]:
    """A network's tensors with LoRAs merged for good; only changed tensors are copied.

    The sum is computed in fp32, in the order of the LoRAs, and rounded once to the type of the base.

    Args:
        base: the network's tensors by name.
        loras: LoRAs that were read for them, and their strengths.
    """
    sums: dict[str, Tensor] = {}
    for lora, strength in loras:
        for name, update in lora.updates.items():
            total = sums[name] if name in sums else base[name].float()
            if update.magnitude is None and update.down is not None and update.up is not None:
                product = (update.up.float(), update.down.float())
                total = torch.addmm(matrix(total), *product, alpha=update.scale * strength).view(total.shape)
            if update.whole:
                total = total + strength * difference(update, base[name])
            sums[name] = total
    return dict(base) | {name: total.to(base[name].dtype) for name, total in sums.items()}
