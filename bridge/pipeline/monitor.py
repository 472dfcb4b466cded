"""Collects the counters of all parts ten times a second and writes the state and the readings from them.

It only reads; no other thread waits for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from bridge.control.telemetry import Telemetry
from bridge.pipeline.alpha.controls import OFF
from bridge.pipeline.alpha.controls import STATE as ALPHA
from bridge.pipeline.alpha.told import Told
from bridge.pipeline.capture import Capture
from bridge.pipeline.publish import Publisher
from bridge.process.engine.choice import size_text
from bridge.process.messages import Health
from bridge.process.supervisor import EngineState, Supervisor
from bridge.service import Service
from engine.control import PREFIX
from engine.controls import STAGES

PERIOD_S = 0.1
WINDOW_NS = 2_000_000_000
"""Rates are measured over this time."""

TOLERANCE = 1.05
"""The latency may be this many times the target before it counts as late: it is measured in whole pictures."""

NOTICE_S = 30.0
"""How long a notice stands in the message."""

STALLED = "The engine gives no pictures; the input is shown until it does."


TOO_LATE = (
    "The latency is {:.0f} ms, the target {:.0f} ms: lower the steps, choose a smaller size or model, "
    "or raise the target."
)


_LORA = re.compile(r"LoRA (\d)\b")


def topic_of(trouble: str) -> str:
    """What a trouble of the engine is about: the file of a LoRA, which is then told beside it, or the engine."""
    found = _LORA.match(trouble)
    return f"{PREFIX}/lora/{found[1]}/file" if found else "engine"


class Monitor(Service):
    """Writes the telemetry.

    Args:
        telemetry: receives the readings and the errors.
        supervisor, capture, publisher: the parts that are observed.
        target_ms: returns the latency target in ms.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        supervisor: Supervisor,
        capture: Capture,
        publisher: Publisher,
        target_ms: Callable[[], float],
    ) -> None:
        super().__init__("monitor", tell=telemetry.error)
        self._telemetry = telemetry
        self._supervisor = supervisor
        self._capture = capture
        self._publisher = publisher
        self._target_ms = target_ms
        self._schedule_reason = ""
        self._notice = ("", 0.0)
        self._alpha = Told([output.uri for output in publisher.outputs], telemetry.error)

    @property
    def notice(self) -> str:
        """What was noticed in the last seconds; empty if nothing was."""
        text, until_s = self._notice
        return text if time.monotonic() < until_s else ""

    def notify(self, text: str) -> None:
        """Say this in the message for the next `NOTICE_S`, unless there is no input or the engine stalls."""
        self._notice = text, time.monotonic() + NOTICE_S
        self._telemetry.update(message=text)

    def health(self, health: Health) -> None:
        """Write the readings of the engine's last chunk."""
        stages = {f"stage_{name}": health.stages.get(name, 0.0) for name in STAGES}
        self._telemetry.update(
            noise=health.noise,
            steps=health.steps,
            prompt=health.prompt,
            loras=health.loras,
            vram=health.vram,
            **stages,
        )
        self._schedule_reason = health.reason
        if health.trouble:
            self._telemetry.error(topic_of(health.trouble), health.trouble)

    def state(self) -> str:
        """One of `bridge.pipeline.readings.STATES`."""
        match self._supervisor.state:
            case EngineState.FAILED:
                return "error"
            case EngineState.LOADING:
                return "loading"
        if self._capture.lost:
            return "no-input"
        if not self._publisher.restyled.detector.has_answered:
            return "loading"  # the engine warms up in its first chunk
        return "stalled" if self._publisher.restyled.detector.stalled else "running"

    def _run(self) -> None:
        before = ""
        while not self.stopping.wait(PERIOD_S):
            now = time.monotonic_ns()
            publisher, supervisor, capture = self._publisher, self._supervisor, self._capture
            middle, high, _ = publisher.pacer.latency.quantiles_ms()
            motion_middle, motion_high, _ = publisher.pacer.motion_latency.quantiles_ms()
            by_cause = {
                "input": capture.skipped + supervisor.frames_replaced,
                "late": publisher.pacer.wet.late,
                "engine": supervisor.frames_lost,
                "output": publisher.main.skipped,
            }
            info = capture.info
            state = self.state()
            stages = publisher.stage_readings()
            target_ms = self._target_ms()
            target = verdict(middle, target_ms) if state == "running" else ""
            self._telemetry.update(
                state=state,
                target=target,
                fps_in=0.0 if capture.lost else rate(tuple(capture.arrived_at), now),
                fps_out=rate(tuple(publisher.main.sent_at), now),
                fps_engine=rate(tuple(publisher.restyled.arrived_at), now),
                latency=middle,
                latency_p95=high,
                motion_latency=motion_middle,
                motion_latency_p95=motion_high,
                dropped=sum(by_cause.values()),
                **{f"dropped_{cause}": count for cause, count in by_cause.items()},
                input=str(info) if info is not None else "",
                model_size=size_text(supervisor.size),
                given_up=", ".join(publisher.given_up),
                outputs_failing=", ".join(output.uri for output in publisher.outputs if output.trouble),
                stretched=capture.stretched,
                alpha_unable=self._alpha.unable(stages.get(ALPHA.name, OFF)),
                **capture.second.readings(),
                **capture.stages.readings(),
                **stages,
            )
            if state == "no-input":
                self._telemetry.update(message=capture.problem or "No picture comes from the input.")
            elif state == "stalled":
                self._telemetry.update(message=STALLED)
                if before != state:
                    self._telemetry.error("engine", STALLED)
            elif state == "running":
                late = "" if target in ("", "held") else TOO_LATE.format(middle, target_ms)
                self._telemetry.update(message=self.notice or capture.second.trouble or self._schedule_reason or late)
            before = state


def verdict(latency_ms: float, target_ms: float) -> str:
    """Whether this latency holds the target: one of `bridge.pipeline.readings.TARGETS`."""
    if latency_ms <= TOLERANCE * target_ms:
        return "held"
    return "late" if latency_ms <= 2.0 * target_ms else "missed"


def rate(times_ns: Sequence[int], now_ns: int) -> float:
    """Events per second over the last `WINDOW_NS`, from their times.

    The span counts as a quarter of the window at least, so that a few events close together give no high rate.
    """
    recent = [t for t in times_ns if now_ns - t <= WINDOW_NS]
    if len(recent) < 2:
        return 0.0
    return (len(recent) - 1) * 1e9 / max(WINDOW_NS // 4, recent[-1] - recent[0])
