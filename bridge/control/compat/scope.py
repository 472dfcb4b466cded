"""Daydream Scope: its addresses, as documented by its authors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bridge.control.compat.dialect import Changes, Dialect, number, prompt_alone, switch, wrong
from engine.errors import ControlError

FRAMES_PER_CHUNK = 4
"""Frames in one of Scope's chunks; Scope measures transitions in chunks."""


class Scope(Dialect):
    """The addresses of Daydream Scope. Of its list of denoising steps only the length is used."""

    name = "scope"
    port = 8000
    values = frozenset({"/scope/prompt", "/scope/noise_scale", "/scope/transition_steps"})
    ignored: ClassVar[Mapping[str, str]] = {
        "/scope/kv_cache_attention_bias": "Tidecast's cache needs no bias",
        "/scope/manage_cache": "Tidecast always manages its cache",
    }

    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """See `Dialect.translate`."""
        if len(args) != 1 and address != "/scope/denoising_step_list":
            wrong(address, "one value")
        match address:
            case "/scope/prompt":
                return prompt_alone(args[0])
            case "/scope/transition_steps":
                fps = float(readings.get("fps_engine", 0.0)) or 16.0
                return {"prompt_seconds": number(address, args) * FRAMES_PER_CHUNK / fps}
            case "/scope/denoising_step_list":
                times = [number(address, [a]) for a in args] or wrong(address, "at least one step")
                return {"steps": len(times)}
            case "/scope/noise_scale":
                return {"strength": args[0]}
            case "/scope/noise_controller":
                return {"motion": float(switch(address, args[0]))}
            case "/scope/reset_cache":
                return {"reset": True} if switch(address, args[0]) else {}
            case "/scope/paused":
                return {"freeze": args[0]}
        raise ControlError(address, "Scope has no such address.")
