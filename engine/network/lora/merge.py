"""Merges LoRAs into the weights of a running network: strengths move like faders, and nothing is captured again.

Every weight W that a LoRA changes keeps a copy W0 of its original, and is always computed from that:
W = W0 + s1 D1 + s2 D2 + ... in one matmul for all LoRAs, written to the address where W lies. So rounding errors do not
add up, any way to the same strengths gives the same bits, and at strength 0 W is W0 again. (An update by differences
would lose small moves of a fader: near 0.02 the step of bfloat16 is 1.2e-4.)

A move is divided into small steps (`steps`), which stand in a ring. `LiveMerge.advance` does as many of them as its
time allows, from where the last call stopped, and the newest strengths count. Until all are done, weights may have
different strengths; each of them is a valid merge.

Shape letters: O outputs, I inputs, R sum of the ranks of all LoRAs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from engine.controls import LORA_SLOTS
from engine.network.lora.branch import Branches
from engine.network.lora.steps import Merge, Refresh, Step, divided
from engine.network.lora.stopwatch import HostStopwatch, Stopwatch
from engine.network.lora.target import Target, matrix
from engine.network.lora.updates import Lora, difference

_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_TEXT = re.compile(r"\.cross_attn\.(k|v|norm_k)\.")
_FOLDED_TEXT = re.compile(r"\.cross_attn\.(k|v|norm_k|o)\.")
_ALL_TEXT = re.compile(r"^text_embedding\.")
_TIME = re.compile(r"^time_(embedding|projection)\.")

OUTSIDE = -1
"""Number that stands for all parameters outside the blocks."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What is computed from weights in advance, and has to be computed again after they have changed.

    Attributes:
        layers: numbers of the blocks in this process.
        read_text: computes what a block attends to for the prompts in use.
        renew_time: computes the table of time embeddings.
        folded: whether `read_text` also uses the output layer of a block's cross-attention
            (`StreamingNetwork.fold_text`).
    """

    layers: Iterable[int]
    read_text: Callable[[int], None]
    renew_time: Callable[[], None]
    folded: bool = False


class LiveMerge:
    """The LoRAs of a network and the gradual merge of their strengths.

    Args:
        parameters: the network's parameters by name, which are written in place. They hold no LoRA yet.
        derived: what depends on them; None for nothing.
        stopwatch: measures how long steps take on the device.
        branches: the LoRAs beside layers with 8-bit weights; None if there are none.

    Attributes:
        loras: the loaded LoRAs by slot; None for an empty one.
        target: the strength of each slot that the weights move to.
        merged_bytes, refreshed: how much was merged, and how often something was computed again, since the beginning.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        derived: Derived | None = None,
        stopwatch: Stopwatch | None = None,
        branches: Branches | None = None,
    ) -> None:
        self._branches = branches
        self._parameters = dict(parameters) | (branches.biases if branches else {})
        self._stopwatch = stopwatch or HostStopwatch()
        self.loras: list[Lora | None] = [None] * LORA_SLOTS
        self.target: tuple[float, ...] = (0.0,) * LORA_SLOTS
        self.merged_bytes = self.refreshed = 0
        self._targets: dict[str, Target] = {}
        self._merges: dict[int, list[Merge]] = {}
        self._steps: list[Step] = []
        self._at = 0
        self._saved_s = 0.0
        self._done: tuple[float, ...] | None = None
        self._loaded: list[int] = []
        self._text: dict[int, Refresh] = {}
        self._time: Refresh | None = None
        self._in_text = _FOLDED_TEXT if derived and derived.folded else _TEXT
        if derived:
            self._text = {layer: Refresh("text", _reading(derived, layer)) for layer in derived.layers}
            self._time = Refresh("time", derived.renew_time)

    @property
    def base(self) -> dict[str, Tensor]:
        """The parameters by name, to read a LoRA for. Their values may hold LoRAs: only names and shapes count."""
        return self._parameters | (self._branches.shapes if self._branches else {})

    @property
    def kept_bytes(self) -> int:
        """Bytes of the originals that are kept, or will be once every weight has been merged."""
        return sum(target.bytes for target in self._targets.values())

    @property
    def due(self) -> int:
        """Number of steps that are left until all weights have the newest strengths."""
        return sum(step.due(self.strengths) for step in self._steps)

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
        changed: set[int] = set()
        for name in sorted({*(before.updates if before else ()), *(lora.updates if lora else ())}):
            target = self._targets.get(name) or self._new_target(name)
            if target is not None:
                self._targets[name] = target
                target.renew(self.loras)
                changed.add(number_of(name))
        self._arrange(changed)
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
        self._done = None
        for name, target in self._targets.items():
            if target.restore():
                for refresh in self._after(name):
                    refresh.wanted = True
        for step in chain.from_iterable(self._merges.values()):
            step.built = None

    def refresh(self) -> None:
        """Compute everything at once that is due because weights have changed."""
        for refresh in (*([self._time] if self._time else []), *self._text.values()):
            if refresh.wanted:
                refresh.run()

    def set(self, strengths: Sequence[float]) -> None:
        """Set the strengths that the weights are to have."""
        before, self.target = self.target, tuple(strengths)
        if self._branches and self.target != before:
            self._branches.set(self.strengths)

    def advance(self, budget_s: float) -> None:
        """Do the steps that are due, as far as the time allows.

        A step that takes longer than the whole budget is done once as much time has been left unused.

        Args:
            budget_s: seconds of the device.
        """
        strengths = self.strengths
        if self._done == strengths:
            return
        spent, found, self._saved_s = 0.0, 0, self._saved_s + budget_s
        while found < len(self._steps):  # until nothing is due in a whole round
            self._at %= len(self._steps)
            step = self._steps[self._at]
            if step.due(strengths):
                work = step.work(strengths)
                if work:
                    expected = self._stopwatch.expected(step, work)
                    if not self._affordable(expected, spent, budget_s):
                        return
                    with self._stopwatch.measured(step, work) as took:
                        step.run(self.loras, strengths)
                    spent += took() or expected or 0.0
                    self._saved_s = 0.0
                    self._count(step)
                else:
                    step.run(self.loras, strengths)
                found = 0
            self._at, found = self._at + 1, found + 1
        self._done, self._saved_s = strengths, 0.0

    def finish(self) -> None:
        """Do all steps that are due."""
        self.advance(float("inf"))

    def _affordable(self, expected: float | None, spent: float, budget_s: float) -> bool:
        """Whether a step may be done now, after `spent` seconds."""
        if budget_s == float("inf"):
            return True
        if not spent:
            return self._saved_s > 0 and (expected is None or expected <= self._saved_s)
        return expected is not None and spent + expected <= budget_s

    def _count(self, step: Step) -> None:
        if isinstance(step, Merge):
            self.merged_bytes += step.size
        else:
            self.refreshed += 1

    def _new_target(self, name: str) -> Target | None:
        """How a parameter is merged; None if it is not in this process, or LoRAs can only stand beside it."""
        if name in self._parameters:
            return Target(name, self._parameters[name])
        return self._branches.requantised(name) if self._branches else None

    def _arrange(self, changed: Iterable[int]) -> None:
        """Put the steps into their order; those of the blocks `changed` are new."""
        for number in changed:
            names = [name for name in self._targets if number_of(name) == number]
            self._merges[number] = divided((self._targets[name], self._after(name)) for name in names)
        self._done = None
        self._steps = [*self._merges.get(OUTSIDE, ()), *([self._time] if self._time else ())]
        for number in sorted({*self._merges, *self._text} - {OUTSIDE}):
            self._steps += [*self._merges.get(number, ()), *([self._text[number]] if number in self._text else ())]

    def _after(self, name: str) -> tuple[Refresh, ...]:
        """What depends on a parameter."""
        if _TIME.search(name):
            return (self._time,) if self._time else ()
        if _ALL_TEXT.search(name):
            return tuple(self._text.values())
        own = self._text.get(number_of(name)) if self._in_text.search(name) else None
        return (own,) if own else ()


def _reading(derived: Derived, layer: int) -> Callable[[], None]:
    return lambda: derived.read_text(layer)


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
