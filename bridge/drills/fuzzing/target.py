"""What a target of the fuzz is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

Check = Callable[[bytes], object]
"""Takes one input; raises if it finds a defect."""


@dataclass(frozen=True, slots=True)
class Target:
    """One place that is fuzzed.

    Attributes:
        name: on the command line, and of the folder of its corpus.
        open: makes what the inputs are fed to.
        seeds: inputs to start from.
        module: whose `TARGETS` holds this target, for the process that feeds it.
    """

    name: str
    open: Callable[[], AbstractContextManager[Check]]
    seeds: tuple[bytes, ...]
    module: str = "bridge.drills.fuzzing.targets"
