"""The tensors of a LoRA file, sorted by module: what the end of each key says, and which module the rest names.

Every program that writes LoRA files ends its keys in one of a few ways (`ROLES`) and spells the modules in one of a few
ways (`engine.network.lora.names.LAYOUTS`); the two are independent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from engine.network.lora.names import LAYOUTS, Layout, ModuleNames, foreign

_ADAPTER = r"(?:\.(?!weight$|bias$)\w+)?"  # peft's name of the adapter, such as ".default"

ROLES: tuple[tuple[str, str], ...] = (
    ("down", rf"\.lora_A{_ADAPTER}(?:\.weight)?"),
    ("up_bias", rf"\.lora_B{_ADAPTER}\.bias"),
    ("up", rf"\.lora_B{_ADAPTER}(?:\.weight)?"),
    ("down", r"(?:\.lora_down|_lora\.down|\.lora\.down|\.lora_linear_layer\.down)\.weight"),
    ("up", r"(?:\.lora_up|_lora\.up|\.lora\.up|\.lora_linear_layer\.up)\.weight"),
    ("mid", r"\.lora_mid\.weight"),
    ("alpha", r"\.alpha"),
    ("magnitude", rf"\.(?:dora_scale|lora_magnitude_vector{_ADAPTER}(?:\.weight)?)"),
    ("diff", r"\.(?:diff|w_norm)"),
    ("diff_bias", r"\.(?:diff_b|b_norm)"),
    ("diff_modulation", r"\.diff_m"),
    ("whole", r"\.(?:set_weight|reshape_weight)"),
    *((name, rf"\.{name}") for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")),
    *((name, rf"\.{name}") for name in ("lokr_t2", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
    *((name, rf"\.{name}") for name in ("hada_t1", "hada_t2")),
)
"""The roles of a module's tensors, and the end of the key that says so.

`down` [rank, I] and `up` [O, rank] are the two factors of an update, `mid` the kernel between them for convolutions,
`alpha` its scale times the rank, `magnitude` the lengths of DoRA (arXiv 2402.09353). The `diff` ones are whole updates
of a weight, a bias or a modulation. `lokr` are factors of a Kronecker product (LoKr) and `hada` of an elementwise one
(LoHa), both of LyCORIS (arXiv 2309.14859).
"""

_PATTERN = re.compile(
    "(?P<module>.+?)(?:" + "|".join(f"(?P<r{number}>{end})" for number, (_, end) in enumerate(ROLES)) + ")"
)


@dataclass(slots=True, eq=False)
class Sorted:
    """A file's tensors by module.

    Attributes:
        modules: the tensors of each module of the network by their role.
        spelled: how the file spells each of these modules.
        left_out: number of keys for layers that this network lacks and that can be left out, by what they belong to.
        unknown: keys that name no module of the network.
        unreadable: keys whose end says nothing.
    """

    modules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def split(key: str) -> tuple[str, str] | None:
    """The module that a key names, as it spells it, and the role of its tensor; None if its end says nothing."""
    found = _PATTERN.fullmatch(key)
    if found is None:
        return None
    number = next(int(name[1:]) for name, text in found.groupdict().items() if name != "module" and text is not None)
    return found["module"], ROLES[number][0]


def sort(tensors: Mapping[str, Tensor], names: ModuleNames, layouts: Sequence[Layout] | None = None) -> Sorted:
    """Sort a file's tensors by the modules of the network.

    Args:
        tensors: the tensors by their keys in the file.
        names: the network's modules.
        layouts: the ways of spelling to try, in order; None for `LAYOUTS`.
    """
    done = Sorted()
    for key in sorted(tensors):
        parts = split(key)
        if kind := foreign(key):
            done.left_out[kind] += 1
        elif parts is None:
            done.unreadable.append(key)
        elif module := _module(parts[0], names, LAYOUTS if layouts is None else layouts):
            done.modules.setdefault(module, {})[parts[1]] = tensors[key]
            done.spelled[module] = parts[0]
        else:
            done.unknown.append(key)
    return done


def _module(name: str, names: ModuleNames, layouts: Iterable[Layout]) -> str | None:
    return next((module for layout in layouts if (module := layout(name, names))), None)
