"""How long the output may pause in a drill on a machine that other programs may keep busy."""

from __future__ import annotations

from bridge.drills.faults.drill import LIMIT_MS, Outcome

IDLE_MS = 20.0
"""On an idle machine a program that only sleeps is not woken later than this."""

HANDOVERS = 4
"""Threads and processes that hand a frame on until it has been sent; each of them can be paused."""


def paused_ms(outcome: Outcome) -> float:
    """How long the machine itself may have paused the output while a case ran, in ms.

    What a program that only sleeps sees as well is the machine's pause. Where there are such pauses, each thread
    through which a frame passes has its own, and one that works is paused longer than one that only sleeps.
    """
    return outcome.machine_ms * (1 if outcome.machine_ms < IDLE_MS else HANDOVERS)


def allowed_ms(outcome: Outcome, quiet_ms: float = 0.0) -> float:
    """The longest allowed pause of the output in ms; `quiet_ms` is the longest when nothing was broken."""
    return max(LIMIT_MS, 3.0 * quiet_ms) + paused_ms(outcome)
