"""What the bridge process and the engine process say to each other, and what the supervisor tells the bridge.

To add a message, declare a frozen dataclass and name it in the union of its direction; mypy then names every match
that does not obey it. Everything in a message must pickle. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from bridge.process.faults import Fault
from engine.config import Config
from engine.controls import Controls


@dataclass(frozen=True, slots=True)
class Start:
    """What an engine process is started with.

    Attributes:
        config: what the engine is told.
        identity: give frames back unchanged instead of opening a model.
        debug: obey `InjectFault`.
        fps: rate of the output in 1/s, which the schedule holds; 0 for the input's.
        controls: the live controls in force.
    """

    config: Config
    identity: bool
    debug: bool
    fps: float
    controls: Controls


@dataclass(frozen=True, slots=True)
class ControlsChanged:
    """The live controls in force from the next chunk on."""

    controls: Controls


@dataclass(frozen=True, slots=True)
class InjectFault:
    """Suffer a fault; obeyed only when the process was started for debugging."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Stop:
    """End in order."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being opened; `text` says what is being done."""

    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """Frames are served from now on, by this model."""

    model: str


@dataclass(frozen=True, slots=True)
class Health:
    """What the last chunk was like; sent at most ten times a second, and whenever there is trouble.

    Attributes:
        noise: share of noise that was mixed in, 0..1.
        steps: denoising steps in force.
        prompt: the prompt in force, in words.
        vram: memory in use on the accelerator in GiB; 0 without one.
        stages: ms of every stage of the chunk, by the names in `engine.controls.STAGES`.
        reason: why the schedule decided as it did; empty when it had nothing to weigh.
        trouble: what went wrong and how it goes on; empty when nothing did.
    """

    noise: float = 0.0
    steps: int = 0
    prompt: str = ""
    vram: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something could not be done and the show goes on.

    Attributes:
        topic: a control's address, such as "/prompt", or a part's name.
        reason: what was wrong and what to do about it.
    """

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One formatted record of the engine process's log."""

    level: int
    logger: str
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine process ends because of an error; `reason` says which."""

    reason: str


@dataclass(frozen=True, slots=True)
class Restarting:
    """The engine has ended, for this reason, and starts again in `retry_s` seconds."""

    reason: str
    retry_s: float


ToEngine = ControlsChanged | InjectFault | Stop
"""From the bridge process to the engine process."""

FromEngine = Loading | Ready | Health | Complaint | LogLine | Failed
"""From the engine process to the bridge process."""

EngineEvent = Loading | Ready | Health | Complaint | Restarting
"""From the supervisor to the bridge."""

TO_ENGINE: tuple[type[ToEngine], ...] = get_args(ToEngine)
FROM_ENGINE: tuple[type[FromEngine], ...] = get_args(FromEngine)
