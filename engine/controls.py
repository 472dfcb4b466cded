"""The one table of everything that can be changed, asked or read while Tidecast plays.

`Controls` declares every live control once: its type, range, unit, default, help and OSC address. OSC,
OSCQuery, MIDI, the control room, the TouchDesigner component, the command line and the README's table are
all generated from what stands here (`CONTROLS`, `COMMANDS`, `TELEMETRY`). To add a control, add one field.

`Config` holds what is chosen before the start and frozen from then on. Knows neither torch nor sockets.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import ControlError

PREFIX = "/tidecast"
"""Root of the OSC namespace; the addresses in the tables below are relative to it."""

PROMPT_SLOTS = 4
"""How many prompts can be blended."""


class Kind(enum.StrEnum):
    """Type of a control's value."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    TEXT = "text"
    CHOICE = "choice"


class Owner(enum.StrEnum):
    """Who obeys a control: the publish thread at its next frame, or the engine at its next chunk."""

    ENGINE = "engine"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Control:
    """One row of the table of live controls.

    Attributes:
        name: field of `Controls`, a Python identifier.
        address: OSC address below `PREFIX`.
        kind: type of its value.
        default: value at the start.
        low, high: inclusive range; None for text, choice and bool.
        unit: unit symbol, empty where there is none.
        choices: the permitted words of a choice.
        group: heading under which generated pages show it.
        label: short human name.
        help: one sentence that says what it does, for artists.
        owner: who obeys it.
        glides: whether a snapshot's recall may move it gradually.
    """

    name: str
    address: str
    kind: Kind
    default: Any
    low: float | None
    high: float | None
    unit: str
    choices: tuple[str, ...]
    group: str
    label: str
    help: str
    owner: Owner
    glides: bool

    @property
    def numeric(self) -> bool:
        """Whether the control has a range (and so `/norm` and `/midi` twins)."""
        return self.kind in (Kind.FLOAT, Kind.INT)

    def coerce(self, value: Any) -> Any:
        """Turn what a client sent into a valid value of this control.

        Numbers, bools and numeric strings are accepted wherever a number is meant; values out of range are
        clamped. Integers are rounded half away from zero.

        Raises:
            ControlError: if `value` cannot be understood; names the address and the reason.
        """
        if self.kind is Kind.TEXT:
            if isinstance(value, bytes):
                try:
                    return value.decode("utf-8")
                except UnicodeDecodeError:
                    raise self._bad(value, "text in UTF-8") from None
            if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < HUGE:
                return str(value)
            if isinstance(value, str) and _has_utf8(value):
                return value
            raise self._bad(value, "text")
        if self.kind is Kind.CHOICE:
            word = value.strip().lower() if isinstance(value, str) else None
            if word in self.choices:
                return word
            index = _number(value)
            if index is not None and index == int(index) and 0 <= index < len(self.choices):
                return self.choices[int(index)]
            raise self._bad(value, "one of " + ", ".join(self.choices))
        if self.kind is Kind.BOOL:
            word = value.strip().lower() if isinstance(value, str) else value
            if word in ("on", "true", "yes"):
                return True
            if word in ("off", "false", "no"):
                return False
            number = _number(value)
            if number is None:
                raise self._bad(value, "on or off")
            return number >= 0.5
        number = _number(value)
        if number is None:
            raise self._bad(value, "a number")
        assert self.low is not None and self.high is not None
        number = min(max(number, self.low), self.high)
        return math.floor(number + 0.5) if self.kind is Kind.INT else number

    def to_norm(self, value: float) -> float:
        """Map a value to 0..1 over the range."""
        assert self.low is not None and self.high is not None
        return (float(value) - self.low) / (self.high - self.low)

    def from_norm(self, norm: Any) -> Any:
        """Map 0..1 (clamped) to a value over the range.

        Raises:
            ControlError: if `norm` is not a number.
        """
        number = _number(norm)
        if number is None:
            raise self._bad(norm, "a number from 0 to 1")
        assert self.low is not None and self.high is not None
        return self.coerce(self.low + min(max(number, 0.0), 1.0) * (self.high - self.low))

    def to_midi(self, value: float) -> int:
        """Map a value to 0..127 over the range."""
        return math.floor(self.to_norm(value) * 127.0 + 0.5)

    def from_midi(self, midi: Any) -> Any:
        """Map 0..127 (clamped; fractions are kept, for finer controllers) to a value over the range.

        Raises:
            ControlError: if `midi` is not a number.
        """
        number = _number(midi)
        if number is None:
            raise self._bad(midi, "a number from 0 to 127")
        return self.from_norm(number / 127.0)

    def _bad(self, value: Any, want: str) -> ControlError:
        return ControlError(PREFIX + self.address, f"{_shown(value)} is not {want}.")


def _number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    if isinstance(value, (bool, int, float, str)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    return None


HUGE = 10**20
"""Integers from here on are nobody's meaning; Python refuses to print the longest."""


def _has_utf8(text: str) -> bool:
    """Whether a text can be sent and stored: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    """`value` as an error message shows it: short, whatever came."""
    if isinstance(value, int) and abs(value) >= HUGE:
        return "a huge number"
    text = repr(value)
    return f"{text[:60]}..." if len(text) > 60 else text


def _live(
    default: Any,
    address: str,
    help: str,
    *,
    group: str,
    label: str,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: tuple[str, ...] = (),
    owner: Owner = Owner.ENGINE,
    glides: bool = False,
) -> Any:
    """Declare a field of `Controls` as a live control."""
    row = dict(
        address=address,
        help=help,
        group=group,
        label=label,
        low=low,
        high=high,
        unit=unit,
        choices=choices,
        owner=owner,
        glides=glides,
    )
    return dataclasses.field(default=default, metadata={"live": row})


def _slot(number: int) -> Any:
    return _live("", f"/prompt/{number}", f"Text of prompt {number}.", group="Prompts", label=f"Prompt {number}")


def _weight(number: int) -> Any:
    return _live(
        1.0 if number == 1 else 0.0,
        f"/prompt/{number}/weight",
        f"Share of prompt {number} in the blend; the shares are divided by their sum, and when all are zero "
        "prompt 1 is used.",
        group="Prompts",
        label=f"Weight {number}",
        low=0.0,
        high=1.0,
        glides=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """A snapshot of every live control: frozen, absolute, every field valid.

    A chunk keeps the snapshot that was in force when it was begun. `dataclasses.replace` makes the next one.
    """

    prompt_1: str = _slot(1)
    prompt_2: str = _slot(2)
    prompt_3: str = _slot(3)
    prompt_4: str = _slot(4)
    weight_1: float = _weight(1)
    weight_2: float = _weight(2)
    weight_3: float = _weight(3)
    weight_4: float = _weight(4)
    prompt_seconds: float = _live(
        0.5,
        "/prompt/seconds",
        "Time that a change of prompts or weights travels over.",
        group="Prompts",
        label="Travel time",
        low=0.0,
        high=60.0,
        unit="s",
    )
    strength: float = _live(
        0.6,
        "/strength",
        "Denoise strength: 0 shows the input, 1 keeps the least of it.",
        group="Stream",
        label="Strength",
        low=0.0,
        high=1.0,
        glides=True,
    )
    steps: int = _live(
        2, "/steps", "Denoising steps: more are cleaner and slower.", group="Stream", label="Steps", low=1, high=4
    )
    motion: float = _live(
        1.0,
        "/motion",
        "How far motion in the input lowers the noise (motion-aware noise).",
        group="Stream",
        label="Motion",
        low=0.0,
        high=1.0,
        glides=True,
    )
    seed: int = _live(
        0,
        "/seed",
        "Noise seed: another number, another picture.",
        group="Stream",
        label="Seed",
        low=0,
        high=2**31 - 1,
    )
    mix: float = _live(
        1.0,
        "/mix",
        "Dry to wet, against the input frame of the same moment.",
        group="Stream",
        label="Mix",
        low=0.0,
        high=1.0,
        owner=Owner.BRIDGE,
        glides=True,
    )
    bypass: bool = _live(
        False,
        "/bypass",
        "Panic: the input straight through.",
        group="Panic",
        label="Bypass",
        owner=Owner.BRIDGE,
    )
    freeze: bool = _live(
        False, "/freeze", "Panic: hold the last frame.", group="Panic", label="Freeze", owner=Owner.BRIDGE
    )
    black: bool = _live(False, "/black", "Panic: black.", group="Panic", label="Black", owner=Owner.BRIDGE)
    fit: str = _live(
        "cover",
        "/fit",
        "How the input meets the model's size.",
        group="Video",
        label="Fit",
        choices=("cover", "contain", "stretch"),
        owner=Owner.BRIDGE,
    )
    mirror: bool = _live(False, "/mirror", "Flip left and right.", group="Video", label="Mirror", owner=Owner.BRIDGE)
    input: str = _live(
        "",
        "/input",
        "Switch the source: ndi:NAME, spout:NAME, file:PATH, pattern:NAME, or an index from the list of inputs.",
        group="Video",
        label="Input",
        owner=Owner.BRIDGE,
    )
    slo_auto: bool = _live(
        True,
        "/slo/auto",
        "Let the scheduler lower steps and batch to hold the output rate and latency.",
        group="Latency",
        label="Hold latency",
    )
    slo_latency: float = _live(
        400.0,
        "/slo/latency",
        "The latency that the scheduler holds.",
        group="Latency",
        label="Latency target",
        low=50.0,
        high=2000.0,
        unit="ms",
    )
    record: bool = _live(
        False, "/record", "Record the output to a file.", group="Recording", label="Record", owner=Owner.BRIDGE
    )
    record_input: bool = _live(
        False,
        "/record/input",
        "Record the input beside the output.",
        group="Recording",
        label="Record input too",
        owner=Owner.BRIDGE,
    )

    # Counters, not controls: a trigger is one more than before, so the newest snapshot loses none of them.
    resets: int = 0
    anchors: int = 0

    def prompts(self) -> tuple[tuple[str, float], ...]:
        """(text, share) of the slots that take part; the shares sum to 1; slot 1 when every weight is zero."""
        weights = (self.weight_1, self.weight_2, self.weight_3, self.weight_4)
        texts = (self.prompt_1, self.prompt_2, self.prompt_3, self.prompt_4)
        total = sum(weights)
        if total <= 0.0:
            return ((self.prompt_1, 1.0),)
        return tuple((t, w / total) for t, w in zip(texts, weights, strict=True) if w > 0.0)


def _rows() -> tuple[Control, ...]:
    kinds = {"float": Kind.FLOAT, "int": Kind.INT, "bool": Kind.BOOL, "str": Kind.TEXT}
    rows = []
    for item in dataclasses.fields(Controls):
        live = item.metadata.get("live")
        if live is not None:
            kind = Kind.CHOICE if live["choices"] else kinds[str(item.type)]
            rows.append(Control(name=item.name, kind=kind, default=item.default, **live))
    return tuple(rows)


CONTROLS: tuple[Control, ...] = _rows()
"""Every live control, in the order in which generated pages show them."""

BY_NAME: dict[str, Control] = {c.name: c for c in CONTROLS}
BY_ADDRESS: dict[str, Control] = {c.address: c for c in CONTROLS}


@dataclass(frozen=True, slots=True)
class Command:
    """Something that is done once when its message arrives.

    Attributes:
        name: Python identifier by which handlers are registered.
        address: OSC address below `PREFIX`.
        arguments: (name, OSC type tag letter or `*` for any, required) of each argument.
        group, label, help: as in `Control`.
    """

    name: str
    address: str
    arguments: tuple[tuple[str, str, bool], ...]
    group: str
    label: str
    help: str

    def coerce(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Turn what a client sent into valid arguments. Numbers are accepted as numeric strings and rounded
        where an integer is meant; a command without arguments takes any (buttons send 1).

        Raises:
            ControlError: if an argument is missing, too many or cannot be understood.
        """
        address = PREFIX + self.address
        if any(tag == "*" for _, tag, _ in self.arguments):
            return tuple(args)
        if not self.arguments:
            return ()
        need = sum(required for _, _, required in self.arguments)
        if not need <= len(args) <= len(self.arguments):
            names = ", ".join(name if required else f"[{name}]" for name, _, required in self.arguments)
            raise ControlError(address, f"The arguments are {names}; {len(args)} came.")
        return tuple(
            _argument(address, name, tag, value) for (name, tag, _), value in zip(self.arguments, args, strict=False)
        )


def _argument(address: str, name: str, tag: str, value: Any) -> Any:
    """One argument of a command as its type tag (`s`, `i` or `f`) wants it."""
    if tag == "s":
        if not isinstance(value, str):
            raise ControlError(address, f"{name}: {_shown(value)} is not text.")
        return value
    number = _number(value)
    if number is None:
        raise ControlError(address, f"{name}: {_shown(value)} is not a number.")
    return math.floor(number + 0.5) if tag == "i" else number


COMMANDS: tuple[Command, ...] = (
    Command(
        "prompt",
        "/prompt",
        (("text", "s", True),),
        "Prompts",
        "Prompt",
        "Set prompt 1 to this text with weight 1 and the other weights to 0.",
    ),
    Command("reset", "/reset", (), "Stream", "Reset", "New stream: forget the history."),
    Command(
        "anchor",
        "/anchor",
        (),
        "Stream",
        "Anchor",
        "Take the newest frame as the new sink (cures drift without a reset).",
    ),
    Command(
        "snapshot_save",
        "/snapshot/save",
        (("number", "i", True),),
        "Snapshots",
        "Save",
        "Store all live controls under a number from 1 to 64, in a file that survives a restart.",
    ),
    Command(
        "snapshot_recall",
        "/snapshot/recall",
        (("number", "i", True), ("seconds", "f", False)),
        "Snapshots",
        "Recall",
        "Recall a stored snapshot, gliding over the seconds.",
    ),
    Command(
        "midi_learn",
        "/midi/learn",
        (("address", "s", True),),
        "MIDI",
        "Learn",
        "Bind the next MIDI knob that moves to this control's address; an empty text stops waiting.",
    ),
    Command(
        "subscribe",
        "/subscribe",
        (("port", "i", True),),
        "Clients",
        "Subscribe",
        "Send telemetry and echoes to the sender's host at this port; any message renews it; it ends after "
        "30 s of silence.",
    ),
    Command("resend", "/resend", (), "Clients", "Resend", "Send every effective value again."),
    Command("inputs", "/inputs", (), "Video", "Inputs", "Answer the list of sources that can be seen."),
    Command(
        "quit",
        "/quit",
        (("word", "s", True),),
        "Clients",
        "Quit",
        "End Tidecast in good order; only for the program that started it, by the word that it passed in "
        "TIDECAST_QUIT_WORD.",
    ),
    Command("ping", "/ping", (("anything", "*", False),), "Clients", "Ping", "Answer /pong with the same arguments."),
)
"""Every one-shot message."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One value that Tidecast reports to its subscribers.

    Attributes:
        name: key under which the telemetry holds it.
        address: OSC address below `PREFIX`.
        kind: type of its value.
        unit, help: as in `Control`.
        hertz: how often it is sent; 0 for readings that are sent when they occur.
    """

    name: str
    address: str
    kind: Kind
    unit: str
    help: str
    hertz: float = 10.0


STATES = ("loading", "running", "no-input", "stalled", "error")
"""Values of the reading `state`."""

STAGES = ("upload", "encode", "dit", "decode", "download")
"""The timed stages of one chunk, in order."""

DROP_CAUSES = ("input", "late", "engine")
"""Why a frame was dropped: replaced by a newer one before the engine took it, finished too late, or lost with a
dead engine."""

TELEMETRY: tuple[Reading, ...] = (
    Reading("state", "/status/state", Kind.TEXT, "", "One of " + ", ".join(STATES) + "."),
    Reading("fps_in", "/status/fps/in", Kind.FLOAT, "1/s", "Frames that arrive per second."),
    Reading("fps_out", "/status/fps/out", Kind.FLOAT, "1/s", "Frames that are sent per second."),
    Reading("fps_engine", "/status/fps/engine", Kind.FLOAT, "1/s", "Restyled frames per second."),
    Reading("latency", "/status/latency", Kind.FLOAT, "ms", "From capture to send, median of the last seconds."),
    Reading("latency_p95", "/status/latency/p95", Kind.FLOAT, "ms", "From capture to send, 95th percentile."),
    *(
        Reading(f"stage_{s}", f"/status/stage/{s}", Kind.FLOAT, "ms", f"Time per chunk of the stage {s}.")
        for s in STAGES
    ),
    Reading("dropped", "/status/dropped", Kind.INT, "", "Frames dropped since the start."),
    *(
        Reading(f"dropped_{c}", f"/status/dropped/{c}", Kind.INT, "", f"Frames dropped since the start, cause {c}.")
        for c in DROP_CAUSES
    ),
    Reading("noise", "/status/noise", Kind.FLOAT, "", "The noise scale in force."),
    Reading("steps", "/status/steps", Kind.INT, "", "The denoising steps in force."),
    Reading("prompt", "/status/prompt", Kind.TEXT, "", "The prompt in force."),
    Reading("vram", "/status/vram", Kind.FLOAT, "GiB", "Accelerator memory in use; 0 without one."),
    Reading("input", "/status/input", Kind.TEXT, "", "The source that is connected."),
    Reading("output", "/status/output", Kind.TEXT, "", "The output's name."),
    Reading("model", "/status/model", Kind.TEXT, "", "The model that is open."),
    Reading("message", "/status/message", Kind.TEXT, "", "What is going on, in words for the artist."),
    Reading("recording", "/status/recording", Kind.TEXT, "", "The file that is being recorded; empty when none is."),
    Reading("heartbeat", "/status/heartbeat", Kind.INT, "", "Counts up once a second.", 1.0),
)
"""Everything that is reported. Errors go out at `/error` (address or topic, reason) when they occur."""


class Config(BaseModel):
    """What the engine is told before it starts; frozen from then on. An unknown key is an error.

    Sizes are in pixels and must be multiples of 16 (the model's stride times its patch).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("ember", description="Name of a row in the model table (tidecast models list).")
    width: int = Field(256, ge=32, le=4096, multiple_of=16, description="Width of the model's picture.")
    height: int = Field(256, ge=32, le=4096, multiple_of=16, description="Height of the model's picture.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    devices: tuple[str, ...] = Field(
        (),
        description="Devices that share the network, in pipeline order, the first encodes and the last decodes; "
        'empty for `device` alone. "remote" is a rank that is started on another machine.',
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of the network; auto is bfloat16 on a GPU or a CPU with matrix units (AMX), "
        "else float32.",
    )
    weights_dtype: Literal["auto", "float8"] = Field(
        "auto",
        description="How the network's large weights are held and multiplied; auto is as dtype, float8 takes "
        "half the memory of bfloat16 and needs an NVIDIA GPU of compute capability 8.9 or newer.",
    )
    vae: Literal["auto", "full", "light", "tiny", "light-tiny"] = Field(
        "auto", description="The model's own video autoencoder, or the tiny fast one; auto is the model's choice."
    )
    text_device: Literal["auto", "cpu", "cuda", "offload"] = Field(
        "auto", description="Where prompts are encoded; offload keeps the encoder on the CPU between prompts."
    )
    text_weights: Literal["bfloat16", "float8"] = Field(
        "bfloat16", description="How the text encoder's weights are held; float8 takes half the memory."
    )
    batch: bool = Field(True, description="Run the denoising steps of successive chunks in one forward (stream batch).")
    max_steps: int = Field(4, ge=1, le=4, description="Most denoising steps that can be chosen live.")
    cache: Literal["auto", "reference", "honest", "adaptive"] = Field(
        "auto", description="Rule for the sink frames of the rolling cache; auto is the model's own."
    )
    travel: Literal["slerp", "linear"] = Field(
        "slerp", description="How prompts are blended and travel: on the arc between them, or the straight line."
    )
    noise: Literal["released", "paper"] = Field(
        "released", description="Motion-aware noise as the release computes it, or as the paper writes it."
    )
    weights_dir: str = Field("", description="Folder with model files; empty for the user's cache folder.")
    threads: int = Field(0, ge=0, le=256, description="CPU threads of the engine; 0 leaves the choice to torch.")
    warmup: bool = Field(True, description="Run every path once before the first frame.")
    compile: Literal["auto", "off", "graphs", "full"] = Field(
        "auto",
        description="graphs captures the steps in CUDA graphs at warm-up, full also compiles the chains of "
        "small operations; auto is graphs on one GPU, off elsewhere.",
    )
