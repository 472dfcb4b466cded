"""StreamDiffusionTD, the TouchDesigner component: its addresses, as documented by its author."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bridge.control.compat.dialect import Changes, Dialect, number, pairs_of, prompt_alone, wrong
from bridge.control.table import ControlTable
from engine.controls import PROMPT_SLOTS
from engine.errors import ControlError


class StreamDiffusionTd(Dialect):
    """The addresses of StreamDiffusionTD. Its list of timesteps becomes steps and strength: its length is the number of
    steps, and the smallest timestep determines how much noise is added."""

    name = "streamdiffusiontd"
    port = 8247
    answer_port = 8248
    values = frozenset({"/prompt", "/prompt_list", "/seed", "/seed_list"})
    ignored: ClassVar[Mapping[str, str]] = {
        "/guidance_scale": "Tidecast's models are distilled and use no guidance",
        "/delta": "Tidecast's models are distilled and use no guidance",
    }

    def __init__(self, table: ControlTable) -> None:
        super().__init__(table)
        self._schedule = 50
        self._frames = 0.0
        self._beat = 0.0

    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """See `Dialect.translate`."""
        match address:
            case "/prompt":
                return prompt_alone(args[0] if len(args) == 1 else wrong(address, "one text"))
            case "/prompt_list":
                pairs = pairs_of(address, args)[:PROMPT_SLOTS]
                pairs += [("", 0.0)] * (PROMPT_SLOTS - len(pairs))
                return {f"prompt_{n}": text for n, (text, _) in enumerate(pairs, 1)} | {
                    f"weight_{n}": weight / max(1.0, pairs[0][1]) for n, (_, weight) in enumerate(pairs, 1)
                }
            case "/seed":
                return {"seed": number(address, args)}
            case "/seed_list":
                return {"seed": pairs_of(address, args)[0][0]}
            case "/t_list":
                times = [number(address, [a]) for a in args] or wrong(address, "at least one timestep")
                return {"steps": len(times), "strength": 1.0 - min(times) / self._schedule}
            case "/num_inference_steps":
                self._schedule = max(1, int(number(address, args)))
                return {}
            case "/pause":
                return {"freeze": True}
            case "/play":
                return {"freeze": False, "bypass": False}
            case "/stop":
                return {"bypass": True}
        raise ControlError(address, "StreamDiffusionTD has no such address.")

    def report(self, readings: Mapping[str, Any], elapsed: float) -> list[tuple[str, Any]]:
        """See `Dialect.report`. The frame count advances at the measured output rate."""
        fps = float(readings.get("fps_out", 0.0))
        self._frames += fps * elapsed
        self._beat += elapsed
        found: list[tuple[str, Any]] = [
            ("/stream-info/state", readings.get("state", "loading")),
            ("/stream-info/fps", fps),
            ("/framecount", int(self._frames)),
            ("/vram/used", float(readings.get("vram", 0.0))),
        ]
        if self._beat >= 1.0:
            self._beat %= 1.0
            found.append(("/server_active", 1))
        return found

    def complain(self, address: str, reason: str) -> list[tuple[str, Any]]:
        """See `Dialect.complain`."""
        return [("/stream-info/error", f"{address}: {reason}")]
