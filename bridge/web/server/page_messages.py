"""The messages between the web process and a page over WebSockets, their JSON, and the checks of what a page sends.

`/api/socket` carries JSON texts. To the page: batches of `PageNews`, as `news_json` writes them. From the page:
`PageSays` as `{"address": "/tidecast/strength", "args": [0.5]}`, or `PageAsks` as `{"ask": "inputs"}`.

`/api/preview` carries JSON texts from the page, `PageWatches` as `{"watch": ["output", "input"]}` and `PageDrew` as
`"drawn"`, and to the page binary messages: `gallery.HEADER`, then a JPEG.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from bridge.video.base import SourceInfo
from bridge.web.messages import (
    ControlsChanged,
    ErrorNote,
    ErrorsReported,
    InputsFound,
    MidiState,
    News,
    ReadingsChanged,
    Reply,
    SnapshotsStored,
)
from engine.errors import ControlError

MAX_ADDRESS = 200
MAX_ARGUMENTS = 8


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the plot of the last two minutes: latency and its 95th percentile in ms, output rate in frames/s."""

    latency: float
    latency_p95: float
    fps_out: float


@dataclass(frozen=True, slots=True)
class PageState:
    """The whole state that pages see.

    Attributes:
        controls: the value of every control, by name.
        readings: the newest readings (finite numbers and texts), by name.
        errors: the last errors, oldest first.
        history: the points of the plot, oldest first.
        clients: how many pages are connected.
        inputs: every source that can be seen; None before the first search.
        snapshots: the stored snapshots.
        midi: the state of MIDI; None without MIDI.
    """

    controls: Mapping[str, Any]
    readings: Mapping[str, Any]
    errors: tuple[ErrorNote, ...]
    history: tuple[Point, ...]
    clients: int
    inputs: tuple[SourceInfo, ...] | None
    snapshots: SnapshotsStored
    midi: MidiState | None


@dataclass(frozen=True, slots=True)
class Joined:
    """The first message to a page: its own name as an origin, and the whole state."""

    you: str
    state: PageState


PageNews = Joined | Point | News
"""What a page is told."""


def state_json(state: PageState) -> dict[str, Any]:
    """The whole state as JSON."""
    return {
        "controls": {name: [value, ""] for name, value in state.controls.items()},
        "readings": dict(state.readings),
        "errors": [asdict(error) for error in state.errors],
        "history": [_point_json(point) for point in state.history],
        "clients": state.clients,
        "inputs": None if state.inputs is None else [asdict(source) for source in state.inputs],
        **_snapshots_json(state.snapshots),
        "midi": None if state.midi is None else asdict(state.midi),
    }


def news_json(news: Iterable[PageNews]) -> dict[str, Any]:
    """One JSON object for a batch of messages, in their order; it holds only the keys of what changed.

    The keys are those of `state_json`, and `you` (only in the first message to a page), `point` ([latency, its 95th
    percentile, output rate]) and `replies` ([{address, args}]). A control is [value, origin].
    """
    content: dict[str, Any] = {}
    for message in news:
        match message:
            case Joined(you, state):
                content |= {"you": you} | state_json(state)
            case ControlsChanged(controls):
                changed = {name: [control.value, control.origin] for name, control in controls.items()}
                content["controls"] = content.get("controls", {}) | changed
            case ReadingsChanged(readings):
                content["readings"] = content.get("readings", {}) | readings
            case ErrorsReported(notes):
                content["errors"] = content.get("errors", []) + [asdict(note) for note in notes]
            case Point():
                content["point"] = _point_json(message)
            case InputsFound(sources):
                content["inputs"] = [asdict(source) for source in sources]
            case SnapshotsStored():
                content |= _snapshots_json(message)
            case MidiState():
                content["midi"] = asdict(message)
            case Reply(_, address, args):
                content["replies"] = [*content.get("replies", []), {"address": address, "args": list(args)}]
            case _:
                assert_never(message)
    return content


def _snapshots_json(stored: SnapshotsStored) -> dict[str, Any]:
    return {
        "snapshots": list(stored.numbers),
        "snapshot_names": {str(number): name for number, name in stored.names.items()},
        "snapshot_colors": {str(number): color for number, color in stored.colors.items()},
        "snapshot_pictures": {str(number): picture_version(jpeg) for number, jpeg in stored.pictures.items()},
    }


def picture_version(jpeg: bytes) -> str:
    """What tells one picture of a snapshot from another: part of the address under which a page asks for it."""
    return hashlib.sha256(jpeg).hexdigest()[:16]


def _point_json(point: Point) -> list[float]:
    """An array, because the first message to a page holds 240 points."""
    return [point.latency, point.latency_p95, point.fps_out]


@dataclass(frozen=True, slots=True)
class PageSays:
    """An OSC-like message."""

    address: str
    args: tuple[str | int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class PageAsks:
    """The page asks for a new list of sources."""


@dataclass(frozen=True, slots=True)
class PageWatches:
    """The kinds of pictures that the page shows from now on; the gallery ignores unknown ones."""

    kinds: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class PageDrew:
    """The page has drawn a picture."""


def parse_said(message: object) -> PageSays:
    """The OSC-like message in a decoded JSON value.

    Raises:
        ControlError: if it is not `{"address": text, "args": [numbers, texts or booleans, at most 8]}`.
    """
    address, args = (message.get("address"), message.get("args", [])) if isinstance(message, dict) else (None, [])
    if isinstance(address, str) and len(address) <= MAX_ADDRESS and isinstance(args, list):
        plain = tuple(a for a in args if isinstance(a, (str, int, float, bool)))
        if len(plain) == len(args) <= MAX_ARGUMENTS:
            return PageSays(address, plain)
    raise ControlError(
        "/api", "This message is not understood.", 'Send {"address": "/tidecast/strength", "args": [0.5]}.'
    )


def parse_control(message: object) -> PageSays | PageAsks:
    """The message of a page on the control socket.

    Raises:
        ControlError: if it is neither.
    """
    if isinstance(message, dict) and message.get("ask") == "inputs":
        return PageAsks()
    return parse_said(message)


def parse_preview(message: object) -> PageWatches | PageDrew:
    """The message of a page on the preview socket.

    Raises:
        ControlError: if it is neither.
    """
    if message == "drawn":
        return PageDrew()
    if isinstance(message, dict) and isinstance(kinds := message.get("watch"), list):
        return PageWatches(tuple(kinds))
    raise ControlError("/api/preview", "This message is not understood.", 'Send {"watch": ["output"]} or "drawn".')
