"""What the bridge process and the web process say to each other; pictures go through a frame ring beside it.

To add a message, declare a frozen dataclass and name it in the union of its direction; mypy then names every match
that does not obey it. What the web process and a page say to each other is in `bridge.web.server.page_messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from bridge.control.table import ControlTable
from bridge.video.base import SourceInfo

KINDS = ("output", "input")
"""Kinds of preview pictures."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the web process is told at its start.

    Attributes:
        host: the address that is listened at (decides which Host headers are ours).
        token: required of every request when not empty.
        osc: host and UDP port on which OSC is listened for, for the OSCQuery tree.
        widest: longest side of a preview, pixels.
        about: guides, examples and the preview's bounds for the page, as JSON.
        table: every control, command and reading; without their owners, which the web process need not import.
    """

    host: str
    token: str
    osc: tuple[str, int]
    widest: int
    about: dict[str, Any]
    table: ControlTable


class ControlValue(NamedTuple):
    """A control's value (a number, a text or a truth value) and who set it; the origin is empty when unknown."""

    value: Any
    origin: str


class ErrorNote(NamedTuple):
    """An error that was reported: when, in Unix time in s, about what, and why."""

    at_s: float
    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class ControlsChanged:
    """Controls by name that were set since the last message of this kind."""

    values: Mapping[str, ControlValue]


@dataclass(frozen=True, slots=True)
class ReadingsChanged:
    """Readings by name (numbers and texts) that changed since the last message of this kind."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorsReported:
    """Errors that were reported since the last message of this kind, oldest first."""

    notes: tuple[ErrorNote, ...]


@dataclass(frozen=True, slots=True)
class InputsFound:
    """Every source that can be seen now."""

    sources: tuple[SourceInfo, ...]


@dataclass(frozen=True, slots=True)
class SnapshotsStored:
    """The numbers of all snapshots, in order."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MidiState:
    """What MIDI does.

    Attributes:
        learning: the full OSC address that waits for a knob; empty when none does.
        bindings: full OSC address -> the knob in words.
        ports: names of the open devices.
    """

    learning: str
    bindings: Mapping[str, str]
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to what `client` said."""

    client: str
    address: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """End in order."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Pages can be opened from now on."""


@dataclass(frozen=True, slots=True)
class Say:
    """A page's OSC-like message; answers go to `client`."""

    address: str
    args: tuple[Any, ...]
    client: str


@dataclass(frozen=True, slots=True)
class Watch:
    """The kinds of pictures that some page watches."""

    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class FindInputs:
    """Look for sources and answer with `InputsFound`."""


News = ControlsChanged | ReadingsChanged | ErrorsReported | InputsFound | SnapshotsStored | MidiState | Reply
"""What pages hear of."""

ToWeb = News | Stop
"""From the bridge process to the web process."""

FromWeb = Serving | Say | Watch | FindInputs
"""From the web process to the bridge process."""

TO_WEB: tuple[type[ToWeb], ...] = get_args(ToWeb)
FROM_WEB: tuple[type[FromWeb], ...] = get_args(FromWeb)
