"""The messages between the web process and a page over WebSockets, their JSON, and the checks of what a page sends.

`/api/socket` carries JSON texts. To the page: batches of `PageNews`, as `news_json` writes them. From the page:
`PageSays` as `{"address": "/tidecast/strength", "args": [0.5]}`, or `PageAsks` as `{"ask": "inputs"}`.

`/api/preview` carries JSON texts from the page, `PageWatches` as `{"watch": ["output", "input"]}` and `PageDrew` as
`"drawn"`, and to the page binary messages: `gallery.HEADER`, then a JPEG.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from bridge.video.base import SourceInfo
from bridge.web.messages import (
    ChangesPending,
    ControlsChanged,
    CuesTold,
    ErrorNote,
    ErrorsReported,
    InputsFound,
    MidiState,
    ReadingsChanged,
    Reply,
    SnapshotsStored,
)
from engine.errors import ControlError
from engine.models.vocabulary import Unknown

MAX_ADDRESS = 200
MAX_ARGUMENTS = 8


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the plots of the last two minutes.

    Attributes:
        latency, latency_p95: of the style, in ms: median and 95th percentile.
        fps_out: output rate in frames/s.
        motion_latency: of the motion, in ms: median; 0 if it is not measured.
    """

    latency: float
    latency_p95: float
    fps_out: float
    motion_latency: float


@dataclass(frozen=True, slots=True)
class Pictures:
    """One picture that holds the pictures of words, row by row.

    Attributes:
        jpeg: the file.
        address: its path on this server; another one for another file.
        tile: side of one picture in pixels.
        columns: pictures in a row.
    """

    jpeg: bytes
    address: str
    tile: int
    columns: int


@dataclass(frozen=True, slots=True)
class PageWords:
    """The words that the model knows.

    Attributes:
        words: each word and its synonyms, in the order of the pictures; empty if the model takes any sentence.
        pictures: None if there are none of these words.
    """

    words: tuple[tuple[str, Sequence[str]], ...] = ()
    pictures: Pictures | None = None


@dataclass(frozen=True, slots=True)
class CheckedPrompt:
    """A prompt and the words in it that the model does not know."""

    text: str
    unknown: tuple[Unknown, ...]


@dataclass(frozen=True, slots=True)
class PromptsChecked:
    """The prompts with unknown words, by the names of their controls; a prompt that is missing has none."""

    prompts: Mapping[str, CheckedPrompt]


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
        pending: the changes that wait for the beat.
        cues: the cue list.
        words: the words that the model knows; None until it is open.
        unknown: the prompts with words that it does not know.
    """

    controls: Mapping[str, Any]
    readings: Mapping[str, Any]
    errors: tuple[ErrorNote, ...]
    history: tuple[Point, ...]
    clients: int
    inputs: tuple[SourceInfo, ...] | None
    snapshots: SnapshotsStored
    midi: MidiState | None
    pending: ChangesPending
    cues: CuesTold
    words: PageWords | None
    unknown: PromptsChecked


@dataclass(frozen=True, slots=True)
class Joined:
    """The first message to a page.

    Attributes:
        you: its own name as an origin.
        state: the whole state.
        local: whether it is on this machine, and may look for files.
    """

    you: str
    state: PageState
    local: bool


PageNews = (
    Joined
    | Point
    | PageWords
    | PromptsChecked
    | ControlsChanged
    | ReadingsChanged
    | ErrorsReported
    | InputsFound
    | SnapshotsStored
    | MidiState
    | ChangesPending
    | CuesTold
    | Reply
)
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
        "pending": [asdict(change) for change in state.pending.changes],
        "cues": _cues_json(state.cues),
        "words": None if state.words is None else _words_json(state.words),
        "unknown": _unknown_json(state.unknown),
    }


def news_json(news: Iterable[PageNews]) -> dict[str, Any]:
    """One JSON object for a batch of messages, in their order; it holds only the keys of what changed.

    The keys are those of `state_json`, `you` and `local` (only in the first message to a page), `point` (the values of
    a `Point`) and `replies` ([{address, args}]). A control is [value, origin].
    """
    content: dict[str, Any] = {}
    for message in news:
        match message:
            case Joined(you, state, local):
                content |= {"you": you, "local": local} | state_json(state)
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
            case ChangesPending(changes):
                content["pending"] = [asdict(change) for change in changes]
            case CuesTold():
                content["cues"] = _cues_json(message)
            case PageWords():
                content["words"] = _words_json(message)
            case PromptsChecked():
                content["unknown"] = _unknown_json(message)
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


def _cues_json(told: CuesTold) -> dict[str, Any]:
    return {"rows": [row._asdict() for row in told.rows], "loop": told.loop}


def picture_version(jpeg: bytes) -> str:
    """What tells one picture of a snapshot from another: part of the address under which a page asks for it."""
    return hashlib.sha256(jpeg).hexdigest()[:16]


def _words_json(words: PageWords) -> dict[str, Any]:
    pictures = words.pictures
    return {
        "list": [[word, list(synonyms)] for word, synonyms in words.words],
        "pictures": pictures and {"address": pictures.address, "tile": pictures.tile, "columns": pictures.columns},
    }


def _unknown_json(checked: PromptsChecked) -> dict[str, Any]:
    return {
        name: {"text": prompt.text, "words": [[word.start, word.end, word.nearest] for word in prompt.unknown]}
        for name, prompt in checked.prompts.items()
    }


def _point_json(point: Point) -> list[float]:
    """An array, because the first message to a page holds 240 points."""
    return [point.latency, point.latency_p95, point.fps_out, point.motion_latency]


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
