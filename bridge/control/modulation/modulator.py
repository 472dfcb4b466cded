"""`Modulator`: what one modulator does, and the line of text in which it is set, stored and told.

    strength sine beats=4 depth=0.3 phase=0.25
    mix envelope trigger=audio/onset release=200
    detail follow source=audio/low depth=0.5
    weight_2 follow source=osc/live/volume low=0 high=127

First the target (the name of a control, or its address), then the shape, then `key=value` for what differs from the
default. An empty text is no modulator.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bridge.control.modulation.shapes import SHAPES
from bridge.control.signals import LONGEST_NAME
from bridge.control.table import ControlTable
from engine.coercion import shown
from engine.control import ALWAYS, PREFIX, Control, Kind
from engine.errors import ControlError

LONGEST_TEXT = 300
"""Most characters of a modulator's text."""

ENVELOPE, FOLLOW = "envelope", "follow"
Shape = Literal["sine", "triangle", "up", "down", "square", "random", "hold", "drunk", "envelope", "follow"]
NAMES: tuple[str, ...] = get_args(Shape)
assert set(NAMES) == {*SHAPES, ENVELOPE, FOLLOW}

Polarity = Literal["both", "up", "down"]
Signal = Annotated[str, Field(max_length=LONGEST_NAME, pattern=r"^(\S+/\S+)?$")]
Ms = Annotated[float, Field(ge=0.0, le=60_000.0)]

DEFAULT_BEATS = 4.0
"""Length of a cycle where neither beats nor a frequency is given."""


class Modulator(BaseModel):
    """What one modulator does.

    Attributes:
        target: the control that it moves, by its name or its address below the root.
        shape: one of `NAMES`.
        beats: length of a cycle in beats; 0 if `hz` gives it.
        hz: cycles in a second; 0 if `beats` gives their length.
        phase: where in a cycle it begins, 0 to 1.
        depth: how far the target moves from its lowest to its highest value, as a share of its range; below 0 upside
            down.
        offset: added to the target, as a share of its range.
        polarity: whether the target moves to both sides of its base, only up from it, or only down; empty for what is
            usual with the shape.
        slew: shortest time in ms from the lowest to the highest value.
        seed: another number, other random values.
        trigger: a signal that begins a cycle whenever it rises above one half; empty for none. An envelope then comes
            only with it.
        source: of `follow`: the signal that is followed.
        low, high: of `follow`: the numbers of the signal that stand for the lowest and the highest value.
        attack, release: of `follow` and `envelope`, in ms.
        back: how many seconds it takes to come back after a hand has moved the target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: str = Field(max_length=100)
    shape: Shape
    beats: float = Field(0.0, ge=0.0, le=1024.0)
    hz: float = Field(0.0, ge=0.0, le=60.0)
    phase: float = Field(0.0, ge=0.0, le=1.0)
    depth: float = Field(0.5, ge=-1.0, le=1.0)
    offset: float = Field(0.0, ge=-1.0, le=1.0)
    polarity: Polarity | Literal[""] = ""
    slew: Ms = 0.0
    seed: int = Field(0, ge=0, le=999_999)
    trigger: Signal = ""
    source: Signal = ""
    low: float = 0.0
    high: float = 1.0
    attack: Ms = 10.0
    release: Ms = 300.0
    back: float = Field(2.0, ge=0.0, le=60.0)

    @model_validator(mode="before")
    @classmethod
    def _cycle(cls, values: Any) -> Any:
        """Give it a length of a cycle if it has none."""
        if isinstance(values, dict) and values.get("shape") != FOLLOW and "hz" not in values:
            values = {"beats": DEFAULT_BEATS, **values}
        return values

    @model_validator(mode="after")
    def _whole(self) -> Modulator:
        if self.shape == FOLLOW:
            if not self.source:
                raise ValueError("source is missing: the signal to follow, such as audio/low or osc/live/volume")
            if self.low == self.high:
                raise ValueError("low and high are the same number")
            if self.beats or self.hz:
                raise ValueError("beats and hz belong to other shapes than follow")
        else:
            if bool(self.beats) == bool(self.hz):
                raise ValueError("give either beats (length of a cycle) or hz (cycles in a second), and not 0")
            if self.source:
                raise ValueError("source belongs to the shape follow; what begins a cycle is the trigger")
        return self

    @property
    def direction(self) -> Polarity:
        """The polarity in force."""
        return self.polarity or ("up" if self.shape in (ENVELOPE, FOLLOW) else "both")

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that it needs."""
        return tuple(name for name in (self.source, self.trigger) if name)

    def text(self) -> str:
        """The line of text that stands for it: the shortest, always the same."""
        words = [self.target, self.shape]
        usual = type(self).model_validate(
            {"target": self.target, "shape": self.shape, **({"source": self.source} if self.source else {})}
        )
        for key in tuple(type(self).model_fields)[2:]:
            value = getattr(self, key)
            if value != getattr(usual, key) and not (key == "beats" and self.hz):
                words.append(f"{key}={_figure(value)}")
        if self.source:
            words.append(f"source={self.source}")
        return " ".join(words)


def _figure(value: Any) -> str:
    """A value as short as it can be read back."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short


KEYS = tuple(Modulator.model_fields)[2:]
"""The keys that follow target and shape."""


def parse(text: str, number: int) -> Modulator | None:
    """The modulator that a text stands for; None for an empty text.

    Args:
        text: see the head of this module.
        number: of the modulator, for errors.

    Raises:
        ControlError: names the modulator, the key, and what is wrong with it.
    """
    if len(text) > LONGEST_TEXT:
        raise wrong(number, f"its text has {len(text)} characters; {LONGEST_TEXT} are possible.")
    words = text.split()
    if not words:
        return None
    if len(words) < 2:
        raise wrong(number, f"{shown(text)} is not understood.", "Write target and shape, such as mix sine beats=4.")
    values: dict[str, Any] = {"target": words[0], "shape": words[1].lower()}
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise wrong(number, f"{shown(word)} is not understood.", f"Write key=value; keys are {', '.join(KEYS)}.")
        if key in values:
            raise wrong(number, f"{key} is there twice.")
        values[key] = value
    return checked(values, number)


def checked(values: dict[str, Any], number: int) -> Modulator:
    """A modulator with these values; see `parse`.

    Raises:
        ControlError: as `parse`.
    """
    try:
        return Modulator.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            reason = f"{first['loc'][0]}: {shown(first['input'])} is not valid: {reason[:1].lower()}{reason[1:]}"
        raise wrong(number, f"{reason}.") from None


def wrong(number: int, reason: str, remedy: str = "") -> ControlError:
    """The error about a modulator."""
    return ControlError(f"{PREFIX}/mod/{number}", f"Modulator {number}: {reason}", remedy)


def can_be_modulated(control: Control) -> bool:
    """Whether modulators can move a control: every number without steps that belongs to the look."""
    return control.kind is Kind.FLOAT and control.stored == ALWAYS


def target_of(modulator: Modulator, table: ControlTable, number: int) -> Control:
    """The control that a modulator moves.

    Raises:
        ControlError: if there is no such control, or it cannot be modulated; names the modulator.
    """
    name = modulator.target
    control = table.by_name.get(name)
    if control is None:
        place = f"{PREFIX}/{name.removeprefix(PREFIX).lstrip('/')}"
        target = table.targets.get(place)
        control = target.control if target is not None and not target.twin else None
    if control is None:
        raise wrong(number, f"target: there is no control named {shown(name)}.")
    if not can_be_modulated(control):
        reason = _REASONS.get(control.kind, "it does not belong to the look")
        raise wrong(
            number,
            f"target: {control.name} cannot be modulated: {reason}.",
            "Choose a fader of the picture, such as strength or mix.",
        )
    return control


def resolved(text: str, number: int, table: ControlTable) -> str:
    """The text of a modulator as it is stored: the shortest one, with the name of its target.

    Raises:
        ControlError: if it is not valid, or its target cannot be modulated.
    """
    modulator = parse(text, number)
    if modulator is None:
        return ""
    return modulator.model_copy(update={"target": target_of(modulator, table, number).name}).text()


_REASONS = {
    Kind.INT: "it has steps",
    Kind.BOOL: "it is a switch",
    Kind.TEXT: "it is a text",
    Kind.CHOICE: "it is a choice of words",
}
