"""Whether a clean pass is faster in one forward with the next chunk's first step, or by itself: measured at warm-up.

On a GPU one forward less saves launches and one reading of the weights, but its kernels have other shapes. Which is
faster depends on the device and the size of the picture.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable

from engine.stream.stream import LocalStream

log = logging.getLogger(__name__)

CHUNKS = 3
"""The time of a way is the median of this many chunks; the first one after a change is not counted."""


def choose(stream: LocalStream, chunk: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> None:
    """Set `LocalStream.fused` to the faster way, where the network offers both.

    Args:
        stream: a stream whose cache is full.
        chunk: runs one chunk, and returns when the device has finished it.
        now: the time in s.
    """
    if not stream.fused:
        return
    seconds: dict[bool, float] = {}
    for fused in (True, False):
        stream.fused = fused
        chunk()  # its clean pass is due in the other way, and work of this one is captured
        chunk()
        times = []
        for _ in range(CHUNKS):
            began = now()
            chunk()
            times.append(now() - began)
        seconds[fused] = statistics.median(times)
    stream.fused = seconds[True] <= seconds[False]
    together, alone = (1e3 * seconds[way] for way in (True, False))
    log.info("a chunk takes %.1f ms with the clean pass fused, %.1f ms with it by itself", together, alone)
