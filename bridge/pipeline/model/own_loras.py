"""The LoRAs that come with a model leave the faders with it, and those of the next one come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bridge.control.origin import INTERNAL
from bridge.control.store import ControlStore
from engine.controls import Controls


class OwnLoras:
    """Keeps the LoRAs of the chosen model on the faders. Files that somebody chose stay where they are.

    Args:
        store: live controls.
        files: gives the files that come with a model or lie in its folder.
        taken: so many first slots belong to the configuration and are never changed.
    """

    def __init__(self, store: ControlStore, files: Callable[[str], Sequence[str]], taken: int = 0) -> None:
        self._store = store
        self._files = files
        self._taken = taken
        self._left: dict[str, list[tuple[str, float]]] = {}  # file and strength of each, when its model was left

    def change(self, before: str, after: str) -> None:
        """Another model was chosen: its LoRAs take the free faders, at 0, or where they stood when it was left."""
        controls = self._store.snapshot.of(Controls)
        slots = list(zip(controls.lora_files(), controls.lora_strengths(), strict=True))[self._taken :]
        own = set(self._files(before))
        self._left[before] = [slot for slot in slots if slot[0] in own]
        come = list(self._left.get(after) or [(file, 0.0) for file in self._files(after)])
        changes: dict[str, Any] = {}
        for number, (file, _) in enumerate(slots, self._taken + 1):
            if file and file not in own:
                continue
            new = come.pop(0) if come else ("", 0.0)
            if file or new[0]:
                changes |= {f"lora_{number}_file": new[0], f"lora_{number}": new[1]}
        self._store.set_now(changes, INTERNAL)
