"""Judges the faults that a reading of the GPU code found, by the rows of `engine.bench.card`.

Each fault has been mended, or its cause avoided. "refuted" means that the run met the place and the fault did not show;
"confirmed" that it still shows; "not seen" that the run could not tell: another system or a second card is needed, or
the part did not end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]

ALLOWED_S = 15 * 60
"""How long the run may take in all."""

GROWTH_MIB = 100.0
"""Growth of reserved memory after a failed capture from which it is called a leak: 200 copies of 10 MiB were made."""

FORWARD_KERNELS = 2000
"""Kernels of a forward of 1.3B from which the fault still shows: on paper it had 2,629 and has 1,516, where a matmul
counts once although a library may launch two kernels for it."""

MEMORY_SLACK = 1.05
"""By which factor a model may exceed the memory that `engine.planning.vram` computes for it."""


class Rows:
    """The measured rows and the ends of the parts.

    Args:
        lines: the lines of the file.
        seconds: how long the run took.
    """

    def __init__(self, lines: Iterable[Row], seconds: float) -> None:
        lines = list(lines)
        self.seconds = seconds
        self.ended = {line["part"]: line["ended"] for line in lines if "ended" in line}
        self._rows = [(line["part"], line["row"]) for line in lines if "row" in line]

    def of(self, part: str, **settings: Any) -> list[Row]:
        """The rows of a kind that have these values."""
        return [
            row
            for name, row in self._rows
            if name == part and all(row.get(key) == value for key, value in settings.items())
        ]


Verdict = tuple[str, str]
"""Verdict ("confirmed", "refuted", "not seen") and evidence."""

UNSEEN = "not seen"


def _verdict(confirmed: bool, evidence: str) -> Verdict:
    return ("confirmed" if confirmed else "refuted"), evidence


def _elsewhere(needs: str) -> Callable[[Rows], Verdict]:
    return lambda _: (UNSEEN, f"needs {needs}")


def _decided(how: str) -> Callable[[Rows], Verdict]:
    return lambda _: (UNSEEN, f"decided {how}")


def _memory(rows: Rows) -> Verdict:
    found, over = [], False
    for row in rows.of("engine"):
        most, computed = row.get("memory_gib"), row.get("needs_gib")
        if most is not None and computed is not None:
            over |= most > MEMORY_SLACK * computed
            name = " ".join(str(row.get(key)) for key in ("model", "vae", "size", "mode"))
            found.append(f"{name}: {most:.1f} GiB, computed {computed:.1f}")
    return _verdict(over, "; ".join(dict.fromkeys(found))) if found else (UNSEEN, "no row with a model's memory")


def _proof(rows: Rows) -> Verdict:
    found = rows.of("engine", vae="full", mode="graphs")
    lost = [row for row in found if row.get("failed") or row.get("trouble")]
    return (
        _verdict(bool(lost), f"{len(found)} rows, {len(lost)} lost") if found else (UNSEEN, "no row with the full VAE")
    )


def _capture(rows: Rows) -> Verdict:
    found = [row for row in rows.of("capture") if "grew_mib" in row]
    if not found or not found[0]["error"]:
        return UNSEEN, "no capture failed" if found else "the part did not end"
    return _verdict(found[0]["grew_mib"] > GROWTH_MIB, f"reserved memory grew by {found[0]['grew_mib']:.0f} MiB")


def _float8(rows: Rows) -> Verdict:
    found = rows.of("float8")
    raw = [row for row in found if row.get("failed") not in (None, "ModelError")]
    if not found:
        return UNSEEN, "no row"
    return _verdict(
        bool(raw), str(raw[0].get("message", ""))[:100] if raw else f"{len(found)} matmuls without an error"
    )


def _float8_speed(rows: Rows) -> Verdict:
    for row in rows.of("engine", mode="fp8"):
        same = {key: row.get(key) for key in ("model", "width", "height", "vae", "steps")}
        for other in rows.of("engine", mode="graphs", **same):
            if "fps" in row and "fps" in other:
                ratio = row["fps"] / other["fps"]
                return _verdict(ratio < 1.0, f"float8 {ratio:.2f} times as fast as bf16 ({row['model']})")
    return UNSEEN, "no two rows to compare"


def _stage(rows: Rows, stage: str) -> Row | None:
    found = rows.of("kernels", stage=stage, kernel="all")
    return found[0] if found else None


def _share(rows: Rows, stages: Iterable[str], *words: str) -> float | None:
    """Share of the stages' time in kernels whose name holds one of the words."""
    total = sum(row["ms"] for stage in stages for row in rows.of("kernels", stage=stage, kernel="all"))
    named = [row for stage in stages for row in rows.of("kernels", stage=stage) if row["kernel"] != "all"]
    ms = sum(row["ms"] for row in named if any(word in row["kernel"].lower() for word in words))
    return ms / total if total else None


def _norms(rows: Rows) -> Verdict:
    share = _share(rows, ("encode", "decode"), "elementwise", "reduce", "norm", "aten::mul", "aten::silu")
    if share is None:
        return UNSEEN, "no profile"
    return _verdict(share > 0.4, f"norms and activations take {share:.0%} of encode and decode")


def _sinks(rows: Rows) -> Verdict:
    row = _stage(rows, "forward")
    if row is None or not row["calls"]:
        return UNSEEN, "no profile"
    return _verdict(row["calls"] > FORWARD_KERNELS, f"{row['calls']} kernels a forward, {row['short']} under 5 us")


def _transposes(rows: Rows) -> Verdict:
    share = _share(rows, ("encode", "decode"), "nchwtonhwc", "nhwctonchw", "transpose")
    return (UNSEEN, "no profile") if share is None else _verdict(share > 0.05, f"transposes take {share:.0%}")


def _beside(rows: Rows) -> Verdict:
    found = [row for row in rows.of("beside") if "beside_ms" in row]
    if not found:
        return UNSEEN, "the part did not end"
    row = found[0]
    delay = row["beside_ms"] - row["alone_ms"]
    return _verdict(delay > 5.0, f"the longest matmul took {delay:.1f} ms more beside an upload")


def _waits(rows: Rows) -> Verdict:
    found = rows.of("waits")
    failed = [row for row in found if row.get("failed")]
    return (
        _verdict(bool(failed), f"{len(failed)} of {len(found)} runs waited or failed") if found else (UNSEEN, "no row")
    )


def _compiled(rows: Rows) -> Verdict:
    found = rows.of("engine", mode="full")
    raw = [row for row in found if row.get("failed") not in (None, "ModelError")]
    return (
        _verdict(bool(raw), raw[0]["failed"] if raw else "compiled, or refused in words")
        if found
        else (UNSEEN, "no row")
    )


def _found(rows: Rows) -> Verdict:
    found = rows.of("machine")
    return _verdict(bool(found[0].get("failed")), str(found[0].get("gpu", "no GPU"))) if found else (UNSEEN, "no row")


def _time(rows: Rows) -> Verdict:
    return _verdict(rows.seconds > ALLOWED_S, f"the run took {rows.seconds / 60:.1f} minutes")


FAULTS: dict[int, tuple[str, Callable[[Rows], Verdict]]] = {
    1: ("two GPUs wait for each other", _elsewhere("two GPUs")),
    2: ("a preset needs more memory than its card has", _memory),
    3: ("checking a capture of the full VAE runs out of memory", _proof),
    4: ("memory leaks after a failed capture", _capture),
    5: ("float8 fails although it is said to work", _float8),
    6: ("float8 is slower than bf16", _float8_speed),
    7: ("float8 loads all of bf16 first", _elsewhere("released weights of 14B")),
    8: ("a failed prompt leaves weights on the card", _decided("by a test on the CPU")),
    9: ("a new prompt delays the video", _beside),
    10: ("the full VAE's norms take many passes", _norms),
    11: ("adaptive sinks take thousands of kernels", _sinks),
    12: ("the host waits on stage", _waits),
    13: ("other ranks are not tuned", _elsewhere("two GPUs")),
    14: ("rebalancing runs out of memory", _elsewhere("two GPUs")),
    15: ("a lost rank hangs the others", _elsewhere("two GPUs")),
    16: ("several GPUs on Windows", _elsewhere("Windows and two GPUs")),
    17: ("compile without Triton raises a raw error", _compiled),
    18: ("Windows commits memory for the whole checkpoint", _elsewhere("Windows and released weights")),
    19: ("readings of memory miss the graphs", _memory),
    20: ("1x1x1 convolutions transpose", _transposes),
    21: ("holes in the allocator after fusing 14B", _memory),
    22: ("the installed torch does not find the card", _found),
    23: ("device mps", _elsewhere("a Mac")),
    24: ("the run takes an hour", _time),
}
"""The faults by number: what is wrong, and how the rows tell."""


def judge(lines: Iterable[Row], seconds: float, *, on_card: bool) -> list[dict[str, str]]:
    """One row a fault: number, fault, verdict, evidence. What ran on the CPU decides nothing about a card."""
    rows = Rows(lines, seconds)
    judged = []
    for number, (fault, decide) in FAULTS.items():
        verdict, evidence = decide(rows)
        if not on_card:
            verdict, evidence = UNSEEN, f"on the CPU: {evidence}"
        judged.append({"number": str(number), "fault": fault, "verdict": verdict, "evidence": evidence})
    return judged
