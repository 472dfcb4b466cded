"""Chooses the preset for the GPUs of this machine, for `tidecast run` without a configuration.

Torch and the model table are asked in a process of their own, since this one imports neither. Without an NVIDIA driver
nothing is asked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.config_file import load, presets

GIB = 2**30

SPARE = 0.08
"""Share of a GPU's memory that a preset leaves to the desktop and to other programs."""

NOMINAL = 0.9
"""Least share of the memory in a preset's name that a GPU must have: cards report less than they are sold with."""

_NAME = re.compile(r"gpu-(?:(\d+)x)?(\d+)")

_CHILD = """
import json, sys, torch
from engine.config import Config
from engine.errors import TidecastError, WeightsMissingError
from engine.models import registry, vram, weights
found = {"gpus": [], "needs": {}, "missing": []}
if torch.cuda.is_available():
    for n in range(torch.cuda.device_count()):
        found["gpus"].append([torch.cuda.get_device_name(n), *torch.cuda.mem_get_info(n)])
for name, text in json.loads(sys.argv[1]).items():
    config = Config.model_validate(text)
    spec = registry.get(config.model)
    found["needs"][name] = vram.need_of(spec, config).total
    try:
        weights.locate(spec, weights.folder(config.weights_dir), vae=vram.setting_of(spec, config).vae)
    except WeightsMissingError as error:
        found["missing"].append(name)
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        preset: its name; None to stay with the defaults.
        said: why, for the user; empty if there is nothing to say.
    """

    preset: str | None
    said: str


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: its name, and its free and total memory in bytes."""

    name: str
    free: float
    total: float


def gpu_presets() -> dict[str, tuple[int, int]]:
    """(number of GPUs, GiB of each) of the presets for GPUs, smallest first."""
    found = {}
    for name in presets():
        if match := _NAME.fullmatch(name):
            found[name] = (int(match[1] or 1), int(match[2]))
    return dict(sorted(found.items(), key=lambda item: (item[1][0] * item[1][1], item[1])))


def for_this_machine() -> Choice:
    """The preset for the GPUs of this machine."""
    if shutil.which("nvidia-smi") is None:
        return Choice(None, "")
    configs = {name: load(name).engine.model_dump(mode="json") for name in gpu_presets()}
    asked = [sys.executable, "-c", _CHILD, json.dumps(configs)]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
        found: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return Choice(None, "The GPU cannot be asked for its memory; tidecast doctor says why. Running Ember.")
    return choose([Card(*card) for card in found["gpus"]], found["needs"], found["missing"])


def choose(cards: Sequence[Card], needs: Mapping[str, float], missing: Sequence[str]) -> Choice:
    """The largest preset that is made for GPUs of this size and fits into their free memory.

    Args:
        cards: the GPUs, in torch's order.
        needs: bytes that each preset needs on each of its GPUs.
        missing: presets whose model files are not on this machine.
    """
    if not cards:
        return Choice(None, "Torch cannot use the NVIDIA GPU; tidecast doctor says why. Running Ember.")
    best = None
    for name, (count, size) in gpu_presets().items():
        used = cards[:count]
        made_for = all(card.total >= NOMINAL * size * GIB for card in used)
        fits = all(needs[name] <= min(card.free, (1 - SPARE) * card.total) for card in used)
        possible = count == 1 or sys.platform != "win32"  # it has no NCCL, by which GPUs exchange data
        if len(used) == count and possible and made_for and fits:
            best = name
    here = " and ".join(f"{card.name} ({card.free / GIB:.1f} of {card.total / GIB:.1f} GiB free)" for card in cards)
    if best is None:
        least = min(needs.values(), default=0.0) / GIB
        return Choice(None, f"{here}: no preset for a GPU fits; the smallest needs {least:.1f} GiB. Running Ember.")
    if best in missing:
        get = f"its model is not here; get it with: tidecast models pull {load(best).engine.model}"
        return Choice(None, f"{here}: the preset {best} fits, but {get}. Running Ember.")
    return Choice(best, f"{here}: running the preset {best}, which needs {needs[best] / GIB:.1f} GiB.")
