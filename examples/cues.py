"""A cue script: what a show sends, and when. Edit CUES, start Tidecast, run this.

tidecast demo                          # in one terminal
.venv/bin/python examples/cues.py      # in another: 26 seconds
.venv/bin/python examples/cues.py 4    # to rehearse: four times as fast
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from bridge.control.osc.client import OscClient

Cue = tuple[float, str, tuple[Any, ...]]
"""(seconds from the start, OSC address, arguments)."""

CUES: Sequence[Cue] = (
    (0.0, "/tidecast/prompt/seconds", (4.0,)),
    (0.0, "/tidecast/prompt", ("neon",)),
    (8.0, "/tidecast/strength", (0.8,)),
    (16.0, "/tidecast/prompt", ("fire",)),
    (24.0, "/tidecast/strength", (0.5,)),
    (26.0, "/tidecast/prompt", ("ink",)),
)


def play(cues: Sequence[Cue], speed: float = 1.0, port: int = 9000) -> None:
    """Send each cue at its time; a speed of 2 takes half the time."""
    begin = time.monotonic()
    with OscClient("127.0.0.1", port) as tidecast:
        for at, address, args in sorted(cues, key=lambda cue: cue[0]):
            time.sleep(max(0.0, begin + at / speed - time.monotonic()))
            tidecast.send(address, args)
            print(f"{at:6.1f} s  {address} {' '.join(map(str, args))}")


if __name__ == "__main__":
    speed = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 9000
    play(CUES, speed, port)
