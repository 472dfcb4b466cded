"""`tidecast bench faults`: breaks everything that can break on stage, and measures what the audience would see.

The bridge runs in this process; source and mixer are processes at the other end of NDI. Each case reports the longest
time between two sends and between two arrivals at the mixer, how long the mixer received the same picture, the time to
recovery, and whether every control kept its value. Two faults are simulated (a full disk, a clock that jumps); all
others really happen.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from unittest import mock

import psutil
import typer

from bridge.app import App
from bridge.bench.overhead import wait_until_running
from bridge.bench.peers import Receiver, Sender, SleepProbe, longest_gap_ms, longest_held_ms
from bridge.config import AppConfig
from bridge.config_file import load
from bridge.process.faults import PAUSE_S
from engine.bench.report import say
from engine.errors import EngineError, PortInUseError

LIMIT_MS = 100.0
"""Longest allowed pause of the output."""

HELD_SLACK_MS = 250.0
"""A failing engine may hold one picture for the limit of the stall detector plus this."""

HOUR_S = 3600
RECOVERY_S = 90.0
SETTLE_S = 1.0

CONTROLS = {"prompt_1": "neon", "strength": 0.85, "steps": 1, "seed": 7, "motion": 0.5, "mix": 0.9}
"""Set at the start; they must have the same values after every case."""


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
    """A bridge between a sender and a receiver, and the ways to break it.

    Args:
        engine: settings of the engine, such as {"engine.model": "ember"}.
        width, height, fps: size and rate of the source.
    """

    def __init__(self, engine: dict[str, Any], width: int = 640, height: int = 360, fps: int = 30) -> None:
        self._mark = f"Tidecast drill {os.getpid()}"
        self._size = (width, height, fps)
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self.config: AppConfig = load(
            None,
            {
                "input.uri": f"ndi:{self._mark} A",
                "output.uri": f"ndi:{self._mark} out",
                "osc.port": 0,
                "web.enabled": False,
                "web.oscquery": False,
                "process.debug": True,
                "process.hang_seconds": 8.0,
                "process.backoff_seconds": 0.2,
                "storage.state_dir": folder,
                "controls": CONTROLS,
                **engine,
            },
        )
        self.app = App(self.config)
        self._errors: list[str] = []

    def __enter__(self) -> Drill:
        with self._stack as stack:
            self._sender = self._start_sender("A")
            stack.callback(lambda: self._sender.kill())
            self._sleep_probe = stack.enter_context(SleepProbe())
            stack.enter_context(self.app)
            stack.callback(self.app.telemetry.listen_errors(lambda topic, why: self._errors.append(f"{topic}: {why}")))
            self._receiver = Receiver(f"ndi:{self._mark} out")
            stack.callback(lambda: self._receiver.kill())
            wait_until_running(self.app, RECOVERY_S)
            time.sleep(SETTLE_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def cases(self) -> dict[str, Callable[[], None]]:
        """Every case by name: a function that breaks something and, where a person would have to, repairs it."""
        return {
            "nothing (for comparison)": lambda: time.sleep(3.0),
            "source killed and restarted": self._source_killed,
            "two sources swapped": self._sources_swapped,
            "size changed mid-stream": self._size_changed,
            "receiver killed": self._receiver_killed,
            "engine killed (SIGKILL)": lambda: psutil.Process(self.app.supervisor.process_id).kill(),
            "engine hangs": lambda: self._engine_stops("hang"),
            "engine stops for 4 s": lambda: self._engine_stops("pause"),
            "engine out of memory": lambda: self.app.supervisor.inject("oom"),
            "engine raises": lambda: self.app.supervisor.inject("error"),
            "disk full at a snapshot": self._disk_full,
            "clock jumps an hour": self._clock_jumps,
            "port already in use": self._port_taken,
        }

    def run(self, case: str) -> Outcome:
        """Break one thing and measure."""
        app = self.app
        before = app.store.values() | {"input": ""}
        restarts = app.supervisor.restarts
        self._errors.clear()
        self._receiver.take()
        self._sleep_probe.take()
        stall_ns = app.publisher.stall_detector.limit_ns
        app.publisher.longest_gap_ms = 0.0
        self.cases()[case]()
        if app.publisher.stall_detector.stalled:  # the limit may have grown since
            stall_ns = max(stall_ns, app.publisher.stall_detector.limit_ns)
        held_limit_ms = stall_ns / 1e6 + HELD_SLACK_MS if case.startswith("engine") else 0.0
        began = time.monotonic()
        if case.startswith("engine") and "stops" not in case:
            _wait(lambda: app.supervisor.restarts > restarts, "the engine did not end")
        styled = len(app.publisher.styled_at) and app.publisher.styled_at[-1]
        _wait(lambda: self._recovered(styled), "no restyled frames came again")
        recovery_s = time.monotonic() - began
        time.sleep(SETTLE_S)
        seen = self._receiver.take() if case != "receiver killed" else []
        after = app.store.values() | {"input": ""}
        reported = "; ".join(dict.fromkeys(self._errors))
        gap_ms, machine_ms = app.publisher.longest_gap_ms, self._sleep_probe.take()
        return Outcome(
            case,
            gap_ms,
            longest_gap_ms(seen),
            longest_held_ms(seen),
            held_limit_ms,
            machine_ms,
            recovery_s,
            before == after,
            reported,
        )

    def _recovered(self, since_ns: int) -> bool:
        """Whether restyled frames have arrived after `since_ns` and the state is "running"."""
        app = self.app
        newer = bool(app.publisher.styled_at) and app.publisher.styled_at[-1] > since_ns
        return newer and app.telemetry.snapshot().get("state") == "running"

    def _start_sender(self, which: str) -> Sender:
        return Sender(f"ndi:{self._mark} {which}", *self._size)

    def _source_killed(self) -> None:
        self._sender.kill()
        _wait(lambda: self.app.telemetry.snapshot().get("state") == "no-input", "the loss was not reported")
        self._errors.append("state no-input: " + str(self.app.telemetry.snapshot()["message"]))
        self._sender = self._start_sender("A")

    def _sources_swapped(self) -> None:
        with self._start_sender("B"):
            for which in ("B", "A"):
                self.app.store.set("input", f"ndi:{self._mark} {which}")
                _wait(functools.partial(self._connected_to, which), f"source {which} was not reached")
                time.sleep(SETTLE_S)

    def _connected_to(self, which: str) -> bool:
        info = self.app.capture.info
        return info is not None and f"{self._mark} {which}" in info.title and not self.app.capture.lost

    def _is_wide(self, width: int) -> bool:
        info = self.app.capture.info
        return info is not None and info.width == width

    def _size_changed(self) -> None:
        width, height, _ = self._size
        for factor in (2, 1):
            self._sender.resize(width * factor, height * factor)
            _wait(functools.partial(self._is_wide, width * factor), "the size did not change")
            time.sleep(SETTLE_S)

    def _receiver_killed(self) -> None:
        self._receiver.kill()
        time.sleep(2.0)
        self._receiver = Receiver(f"ndi:{self._mark} out")
        _wait(lambda: bool(self._receiver.take()), "the new receiver got nothing")

    def _engine_stops(self, fault: str) -> None:
        """Stop the engine; returns once the stall is reported, or the engine went on before it counted as one."""
        over_ns = time.monotonic_ns() + int(PAUSE_S * 1e9)
        self.app.supervisor.inject(fault)
        seen = self.app.telemetry.snapshot
        _wait(lambda: seen().get("state") == "stalled" or self._recovered(over_ns), "the stall was not reported")

    def _disk_full(self) -> None:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch("bridge.control.files.os.fsync", side_effect=full):
            self.app.store.handle("/tidecast/snapshot/save", [1])
            _wait(lambda: any("snapshot" in error for error in self._errors), "a full disk was not reported")

    def _clock_jumps(self) -> None:
        clock, clock_ns = time.time, time.time_ns
        for jump_s in (HOUR_S, -HOUR_S):
            with (
                mock.patch("time.time", lambda jump_s=jump_s: clock() + jump_s),
                mock.patch("time.time_ns", lambda jump_s=jump_s: clock_ns() + jump_s * 1_000_000_000),
            ):
                time.sleep(SETTLE_S)

    def _port_taken(self) -> None:
        assert self.app.osc is not None
        taken = self.config.osc.model_copy(update={"port": self.app.osc.address[1]})
        try:
            with App(self.config.model_copy(update={"osc": taken})):
                raise EngineError("A second bridge started on a port that is in use.")
        except PortInUseError as error:
            self._errors.append(str(error))


def _wait(happened: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + RECOVERY_S
    while not happened():
        if time.monotonic() > deadline:
            raise EngineError(f"After {RECOVERY_S:.0f} s: {otherwise}.")
        time.sleep(0.01)


def outcomes(drill: Drill, only: str = "") -> Iterator[Outcome]:
    """Run every case whose name contains `only`, one after the other."""
    for case in drill.cases():
        if only in case:
            yield drill.run(case)


def faults(
    model: Annotated[str, typer.Option(help="Model to run; identity for the bridge alone.")] = "ember",
    only: Annotated[str, typer.Option(help="Only cases with this in their name.")] = "",
) -> None:
    """The fault drill: break each part in turn and measure the output; exit code 1 if a limit is exceeded."""
    engine = {"process.kind": "identity"} if model == "identity" else {"engine.model": model}
    results = []
    with Drill(engine) as drill:
        for outcome in outcomes(drill, only):
            verdict = "passed" if outcome.passed else "NOT passed"
            print(
                f"{outcome.case}: longest gap {outcome.gap_ms:.0f} ms, same picture for {outcome.held_ms:.0f} ms, "
                f"{verdict}",
                flush=True,
            )
            results.append(outcome)
    rows = [
        (
            r.case,
            f"{r.gap_ms:.0f}",
            f"{r.gap_received_ms:.0f}" if r.gap_received_ms else "",
            f"{r.held_ms:.0f}" + (f" of {r.held_limit_ms:.0f}" if r.held_limit_ms else "") if r.held_ms else "",
            f"{r.machine_ms:.0f}",
            f"{r.recovery_s:.1f}",
            "yes" if r.controls else "NO",
            "yes" if r.passed else "NO",
        )
        for r in results
    ]
    headings = (
        "case",
        "gap sent, ms",
        "gap received, ms",
        "same picture, ms",
        "machine's own pause, ms",
        "recovery, s",
        "controls kept",
        "passed",
    )
    say("The fault drill", rows, [asdict(r) | {"passed": r.passed} for r in results], headings)
    raise typer.Exit(0 if all(r.passed for r in results) else 1)
