"""The panic buttons. The publisher obeys them at its next frame, whatever the engine does."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control import NEVER, live


@dataclass(frozen=True, slots=True, kw_only=True)
class PanicControls:
    """Black takes precedence over freeze, and freeze over bypass. No stored snapshot includes them."""

    bypass: bool = live(
        False, "/bypass", "Panic: the input straight through.", group="Panic", label="Bypass", stored=NEVER
    )
    freeze: bool = live(False, "/freeze", "Panic: hold the last frame.", group="Panic", label="Freeze", stored=NEVER)
    black: bool = live(False, "/black", "Panic: black.", group="Panic", label="Black", stored=NEVER)
