"""What other parts assume of the supervisor. How it keeps an engine alive: `tests/bridge/test_app.py`."""

from __future__ import annotations

from bridge.process.supervisor import INBOX_DEPTH
from engine.planning.simulate import INPUT_FRAMES


def test_the_simulated_schedule_has_the_input_ring_of_the_bridge() -> None:
    assert INPUT_FRAMES == INBOX_DEPTH
