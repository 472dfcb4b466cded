"""Moves controls gradually to the values of a recalled snapshot."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bridge.control.origin import Origin
from bridge.control.store import ControlStore
from engine.control import PREFIX

log = logging.getLogger(__name__)

GLIDE_HZ = 60.0


@dataclass(frozen=True, slots=True)
class Motion:
    """The way of one control: from a value to another, for a length of time from a moment on, in seconds or beats."""

    start: float
    end: float
    began: float
    length: float

    def share_at(self, now: float) -> float:
        """How much of the way is behind it, 0 to 1."""
        return min(1.0, max(0.0, (now - self.began) / self.length))

    def value_at(self, now: float) -> float:
        """The value at a moment."""
        share = self.share_at(now)
        return self.end if share == 1.0 else self.start + (self.end - self.start) * share


class Glide:
    """What glides now: one thread at most, however many recalls there are.

    Args:
        store: the live controls.
        origin: the origin of every write.
        address: OSC address below `PREFIX` under which errors are reported.
        report: called with (topic, reason) when a glide ends early because of an error.
    """

    def __init__(self, store: ControlStore, origin: Origin, address: str, report: Callable[[str, str], None]) -> None:
        self._store = store
        self._origin = origin
        self._topic = PREFIX + address
        self._report = report
        self._change = threading.Lock()
        self._gliding: Mapping[str, Motion] = {}
        self._thread: threading.Thread | None = None

    def replace(self, moving: Mapping[str, tuple[float, float]], seconds: float, *, keep: bool = False) -> None:
        """Let these controls glide from their first value to their second; `go` starts it.

        Args:
            moving: (first value, second value) by name.
            seconds: how long they take; must be positive if anything moves.
            keep: whether all others glide on; if not, these take their place.
        """
        now = time.monotonic()
        with self._change:
            others = self._gliding if keep else {}
            self._gliding = {**others, **{n: Motion(a, b, now, seconds) for n, (a, b) in moving.items()}}

    def stop(self) -> None:
        """Leave every control where it is."""
        self.replace({}, 0.0)

    def go(self) -> None:
        """Start the thread if something glides and none runs."""
        with self._change:
            if self._gliding and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="glide", daemon=True)
                self._thread.start()

    def note_write(self, name: str, origin: Origin) -> None:
        """Somebody has set a control: it glides no longer, unless the glide itself has set it."""
        if origin != self._origin and name in self._gliding:
            with self._change:
                self._gliding = {n: ends for n, ends in self._gliding.items() if n != name}

    def _run(self) -> None:
        """Move the gliding controls until each has arrived or was set by something else; another recall replaces them.

        Not a `Service`: the thread ends with the glide, under the lock that the next recall takes to start one.
        """
        while True:
            time.sleep(1.0 / GLIDE_HZ)
            with self._change:
                moving = self._gliding
                if not moving:
                    self._thread = None
                    return
                now = time.monotonic()
                self._gliding = {name: motion for name, motion in moving.items() if motion.share_at(now) < 1.0}
            try:
                self._store.set_many({name: motion.value_at(now) for name, motion in moving.items()}, self._origin)
            except Exception as error:  # whatever it is, the next glide must find a thread or start one
                log.exception("a glide failed")
                self._report(self._topic, f"The glide ended early: {error}")
                self.stop()
