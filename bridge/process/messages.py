"""Messages between the bridge process and the engine process, and from the supervisor to the bridge.

To add a message, declare a frozen dataclass and add it to the union of its direction; mypy then reports every match
that does not handle it. Every field must be picklable. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from bridge.process.engine.choice import EngineChoice, Size, SizeTrial
from bridge.process.faults import Fault
from engine.config import Config
from engine.controls import Controls
from engine.models.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Start:
    """The argument with which an engine process is started.

    Attributes:
        config: the engine's configuration.
        identity: return frames unchanged instead of opening a model.
        debug: obey `InjectFault`.
        fps: output rate in 1/s that the schedule aims at; 0 for the input's rate.
        controls: the live controls in force.
        trial: if given, measure these sizes instead of processing frames, answer with `SizeFound`, and end.
    """

    config: Config
    identity: bool
    debug: bool
    fps: float
    controls: Controls
    trial: SizeTrial | None = None


@dataclass(frozen=True, slots=True)
class ControlsChanged:
    """The live controls in force from the next chunk on."""

    controls: Controls


@dataclass(frozen=True, slots=True)
class InjectFault:
    """Cause a fault; obeyed only when the process was started for debugging."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish and end the process."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being opened; `text` names the step."""

    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is open, and frames are processed from now on.

    Attributes:
        model: its name.
        vocabulary: the only words that it knows; None if it takes any sentence.
        most_steps: the most denoising steps that it takes with this configuration.
    """

    model: str
    vocabulary: Vocabulary | None = None
    most_steps: int = 4


@dataclass(frozen=True, slots=True)
class SizeFound:
    """The size that was chosen by measuring.

    Attributes:
        size: width and height in pixels.
        text: what was measured and chosen, for the user.
    """

    size: Size
    text: str


@dataclass(frozen=True, slots=True)
class Health:
    """Figures of the last chunk; sent when they change, at most ten times a second, and whenever there is trouble.

    Attributes:
        noise: share of noise that was mixed in, 0..1.
        steps: denoising steps in force.
        prompt: the text of the prompt in force.
        vram: memory in use on the accelerator in GiB; 0 without one.
        stages: duration of every stage of the chunk in ms, by the names in `engine.controls.STAGES`.
        reason: why the schedule decided as it did; empty when there was nothing to decide.
        trouble: what went wrong and what was done about it; empty when nothing went wrong.
        loras: the loaded LoRAs: slot, name and trigger words.
    """

    noise: float = 0.0
    steps: int = 0
    prompt: str = ""
    vram: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    trouble: str = ""
    loras: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something could not be done; the engine goes on.

    Attributes:
        topic: a control's address, such as "/prompt", or the name of a part of the program.
        reason: what was wrong and what to do about it.
    """

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One formatted log record of the engine process."""

    level: int
    logger: str
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine process ends because of the error in `reason`.

    Attributes:
        reason: for the user.
        captures: whether the next process may capture its work in CUDA graphs; False after a capture has failed.
    """

    reason: str
    captures: bool = True


@dataclass(frozen=True, slots=True)
class Restarting:
    """The engine has ended for this reason and is started again in `retry_s` seconds."""

    reason: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class ChangeFailed:
    """The model and the size that were chosen could not be started; those before are started again.

    Attributes:
        failed: what was chosen.
        back: what is started instead.
        reason: why, for the user.
    """

    failed: EngineChoice
    back: EngineChoice
    reason: str


ToEngine = ControlsChanged | InjectFault | Stop
"""From the bridge process to the engine process."""

FromEngine = Loading | Ready | SizeFound | Health | Complaint | LogLine | Failed
"""From the engine process to the bridge process."""

EngineEvent = Loading | Ready | SizeFound | Health | Complaint | Restarting | ChangeFailed
"""From the supervisor to the bridge."""

TO_ENGINE: tuple[type[ToEngine], ...] = get_args(ToEngine)
FROM_ENGINE: tuple[type[FromEngine], ...] = get_args(FromEngine)
