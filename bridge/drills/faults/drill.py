"""The bridge between a sender and a receiver that the cases break, and what is measured.

The bridge runs in this process; source and mixer are processes at the other end of NDI.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.app import App
from bridge.bench.overhead import wait_until_running
from bridge.bench.peers import Receiver, Sender, SleepProbe, longest_gap_ms, longest_held_ms
from bridge.config import AppConfig
from bridge.config_file import load
from bridge.control.stored.content import EXTRAS
from engine.errors import EngineError

LIMIT_MS = 100.0
"""Longest allowed pause of the output."""

HELD_SLACK_MS = 250.0
"""A failing engine may hold one picture for the limit of the stall detector plus this."""

RECOVERY_S = 240.0
"""Longest wait for anything that must happen, on a machine that other programs keep busy. Not a bar."""

SETTLE_S = 1.0

CONTROLS = {"prompt_1": "neon", "strength": 0.85, "steps": 1, "seed": 7, "motion": 0.5, "mix": 0.9}
"""Set at the start; they must have the same values after every case."""

POISONED = 64
"""The number of a stored snapshot whose input cannot be opened."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that breaks.

    Attributes:
        name: in the table; `--only` looks for a part of it.
        cause: breaks it and, where a person would have to, repairs it.
        engine: whether the engine fails, so that one picture may be held for a while, but not longer.
        restarts: whether the engine process ends.
        tells: whether an error or a state must be reported.
        receives: whether the mixer is there all the time.
        missing: why this machine cannot cause it, as a sentence; empty if it can.
    """

    name: str
    cause: Callable[[Drill], None]
    engine: bool = False
    restarts: bool = False
    tells: bool = True
    receives: bool = True
    missing: Callable[[], str] = lambda: ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case did.

    Attributes:
        case: what was broken.
        gap_ms: longest time between two sends.
        gap_received_ms: longest time between two arrivals at the mixer; 0 if the mixer was broken.
        held_ms: longest time for which the mixer received the same picture; 0 if the mixer was broken.
        held_limit_ms: the most that `held_ms` may be; 0: no limit (without its source, the output has no new picture).
        machine_ms: latest wake-up of a process that only sleeps: the machine's own pauses.
        recovery_s: time until restyled frames flowed again.
        controls: whether every control kept its value.
        reported: the errors that were reported.
    """

    case: str
    gap_ms: float
    gap_received_ms: float
    held_ms: float
    held_limit_ms: float
    machine_ms: float
    recovery_s: float
    controls: bool
    reported: str

    @property
    def passed(self) -> bool:
        """Whether the output went on, was not frozen for too long by the engine, and every control kept its value."""
        return self.gap_ms <= LIMIT_MS and self.held_ms <= (self.held_limit_ms or self.held_ms) and self.controls


class Drill:
    """A bridge between a sender and a receiver.

    Args:
        engine: settings of the engine, such as {"engine.model": "ember"}.
        width, height, fps: size and rate of the source.
        settle_s: how long each case waits in s, once what was broken works again, to see that it goes on working.

    Attributes:
        mark: in the names of the source and the output.
        size: width, height and rate of the source.
        settle_s: as given.
        errors: what was reported during this case.
        sender, receiver: the processes at both ends.
    """

    def __init__(
        self, engine: dict[str, Any], width: int = 640, height: int = 360, fps: int = 30, settle_s: float = SETTLE_S
    ) -> None:
        self.settle_s = settle_s
        self.mark = f"Tidecast drill {os.getpid()}"
        self.size = (width, height, fps)
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        poisoned = {**CONTROLS, "input": "file:~nobody/x.mp4", EXTRAS: ["input"]}
        (self.folder / "snapshots.json").write_text(json.dumps({"version": 1, "snapshots": {str(POISONED): poisoned}}))
        self.config: AppConfig = load(
            None,
            {
                "input.uri": self.uri("A"),
                "output.uri": self.uri("out"),
                "osc.port": 0,
                "web.port": 0,
                "web.announce": False,
                "process.debug": True,
                "process.hang_seconds": 8.0,
                "process.backoff_seconds": 0.2,
                "storage.state_dir": str(self.folder),
                "controls": CONTROLS,
                **engine,
            },
        )
        self.app = App(self.config)
        self.errors: list[str] = []

    def __enter__(self) -> Drill:
        with self._stack as stack:
            self.sender = self.start_sender("A")
            stack.callback(lambda: self.sender.kill())
            self._sleep_probe = stack.enter_context(SleepProbe())
            stack.enter_context(self.app)
            for listen in (self.app.telemetry.listen_errors, self.app.store.listen_errors):
                stack.callback(listen(lambda topic, why: self.errors.append(f"{topic}: {why}")))
            self.receiver = Receiver(self.uri("out"))
            stack.callback(lambda: self.receiver.kill())
            wait_until_running(self.app, RECOVERY_S)
            time.sleep(self.settle_s)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def run(self, case: Case) -> Outcome:
        """Break one thing and measure."""
        app = self.app
        before = app.store.values() | {"input": ""}
        restarts = app.supervisor.restarts
        self.errors.clear()
        self.receiver.take()
        self._sleep_probe.take()
        stall_ns = app.publisher.restyled.detector.limit_ns
        app.publisher.main.longest_gap_ms = 0.0
        case.cause(self)
        if app.publisher.restyled.detector.stalled:  # the limit may have grown since
            stall_ns = max(stall_ns, app.publisher.restyled.detector.limit_ns)
        held_limit_ms = stall_ns / 1e6 + HELD_SLACK_MS if case.engine else 0.0
        began = time.monotonic()
        if case.restarts:
            wait_for(lambda: app.supervisor.restarts > restarts, "the engine did not end")
        styled = self.last_styled_ns()
        wait_for(lambda: self.recovered(styled), "no restyled frames came again")
        recovery_s = time.monotonic() - began
        time.sleep(self.settle_s)
        seen = self.receiver.take() if case.receives else []
        return Outcome(
            case.name,
            app.publisher.main.longest_gap_ms,
            longest_gap_ms(seen),
            longest_held_ms(seen),
            held_limit_ms,
            self._sleep_probe.take(),
            recovery_s,
            before == app.store.values() | {"input": ""},
            "; ".join(dict.fromkeys(self.errors)),
        )

    def last_styled_ns(self) -> int:
        """When the last restyled frame was sent; 0 if none was."""
        styled_at = self.app.publisher.restyled.arrived_at
        return styled_at[-1] if styled_at else 0

    def recovered(self, since_ns: int) -> bool:
        """Whether restyled frames have been sent after `since_ns` and the state is "running"."""
        return self.last_styled_ns() > since_ns and self.state == "running"

    @property
    def state(self) -> str:
        """The state that is reported."""
        return str(self.app.telemetry.snapshot().get("state", ""))

    @property
    def osc(self) -> tuple[str, int]:
        """Where the bridge listens for OSC."""
        assert self.app.osc is not None
        return self.app.osc.address

    def reported(self, part: str) -> bool:
        """Whether an error with this in its text was reported."""
        return any(part in error for error in self.errors)

    def uri(self, which: str) -> str:
        """The address of the source or output of this name."""
        return f"ndi:{self.mark} {which}"

    def start_sender(self, which: str) -> Sender:
        """Another source."""
        return Sender(self.uri(which), *self.size)

    def connected_to(self, which: str) -> bool:
        """Whether frames of this source come."""
        info = self.app.capture.info
        return info is not None and f"{self.mark} {which}" in info.title and not self.app.capture.lost


def wait_for(happened: Callable[[], bool], otherwise: str, limit_s: float = RECOVERY_S) -> None:
    """Wait until something has happened.

    Raises:
        EngineError: if it has not within `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > deadline:
            raise EngineError(f"After {limit_s:.0f} s: {otherwise}.")
        time.sleep(0.01)
