"""A memory barrier for programs in Python.

On ARM, another core may see two writes of this one in the other order, and a core may read ahead. (An x86 keeps the
order of writes and the order of reads.) Python has no fence, and none that `ctypes` could call is on every system, but
every lock has one on each side: what precedes a release is visible before it, and nothing that follows an acquisition
is done before it. A release that is *followed* by an acquisition lets nothing pass in either direction. The other order
would: both sides could move in between. So the barrier takes and releases a lock of its own twice.
"""

from __future__ import annotations

import threading


class MemoryBarrier:
    """Call it between two groups of reads and writes that other processes must see in this order; about 0.1 us."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Put the barrier here."""
        lock = self._lock
        with lock:
            pass  # the release at the end ...
        with lock:  # ... and this acquisition are the barrier
            pass
