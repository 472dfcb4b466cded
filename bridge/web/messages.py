"""The messages between the bridge process and the web process; pictures go through frame rings instead.

To add a message, declare a frozen dataclass and add it to the union of its direction; mypy then reports every match
that does not handle it. The messages between the web process and a page are in `bridge.web.server.page_messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from bridge.control.cues.cue_list import Cue, CueList
from bridge.control.cues.editing import FOLLOW
from bridge.control.cues.lengths import GO
from bridge.control.origin import Origin
from bridge.control.table import ControlTable
from bridge.control.tempo.state import Pending
from bridge.video.base import SourceInfo
from engine.models.vocabulary import Vocabulary

KINDS = ("output", "input", "wall")
"""Kinds of pictures that pages watch: small ones of the output and the input, and the output at its full size."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the web process is given at its start.

    Attributes:
        host: the address that the server listens at; decides which Host headers are accepted.
        token: if not empty, every request must carry it.
        osc: host and UDP port at which Tidecast listens for OSC, for the OSCQuery tree.
        widest: longest side of a preview picture, pixels.
        about: what the page shows beside the controls, as JSON (`bridge.web.launcher.WebProcess.about`).
        table: every control, command and reading, without their owners: the web process need not import those.
    """

    host: str
    token: str
    osc: tuple[str, int]
    widest: int
    about: dict[str, Any]
    table: ControlTable


class ControlValue(NamedTuple):
    """A control's value (number, text or bool) and who set it; the origin is empty when unknown."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class ErrorNote:
    """A reported error.

    Attributes:
        time_s: when it was reported, Unix time.
        topic: the OSC address or the part of Tidecast that it concerns.
        reason: what happened and what to do, for people.
    """

    time_s: float
    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class ControlsChanged:
    """The controls that were set since the last message of this kind, by name."""

    values: Mapping[str, ControlValue]


@dataclass(frozen=True, slots=True)
class ReadingsChanged:
    """The readings (numbers and texts) that changed since the last message of this kind, by name."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorsReported:
    """The errors reported since the last message of this kind, oldest first."""

    notes: tuple[ErrorNote, ...]


@dataclass(frozen=True, slots=True)
class InputsFound:
    """Every source that can be seen now."""

    sources: tuple[SourceInfo, ...]


@dataclass(frozen=True, slots=True)
class SnapshotsStored:
    """The stored snapshots.

    Attributes:
        numbers: the numbers of all, in order.
        names: the names of those that have one, by number.
        colors: the colours of those that have one, by number.
        pictures: the pictures of those that have one, as JPEG, by number.
    """

    numbers: tuple[int, ...]
    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, str] = field(default_factory=dict)
    pictures: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MidiState:
    """The state of MIDI.

    Attributes:
        learning: the full OSC address that is waiting for a knob; empty for none.
        bindings: full OSC address -> name of the knob.
        ports: names of the open devices.
    """

    learning: str
    bindings: Mapping[str, str]
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangesPending:
    """The changes that wait for the beat, the first first."""

    changes: tuple[Pending, ...]


class CueRow(NamedTuple):
    """One cue, for people: what it sets, and its lengths of time as a file has them; empty for none.

    Attributes:
        name: its name.
        words: what it sets.
        snapshot: the snapshot that it recalls; 0 for none.
        glide: how long its values take.
        wait: time until the next one: a length, GO or follow.
        loop: the cue that comes after it in place of the next one, with how often.
    """

    name: str
    words: str
    snapshot: int
    glide: str
    wait: str
    loop: str


@dataclass(frozen=True, slots=True)
class CuesTold:
    """The cue list.

    Attributes:
        rows: the cues.
        loop: whether the first one comes after the last one.
    """

    rows: tuple[CueRow, ...]
    loop: bool

    @classmethod
    def of(cls, cues: CueList) -> CuesTold:
        """The list, for people."""
        return cls(tuple(_cue_row(cue) for cue in cues.cue), cues.loop)


def _cue_row(cue: Cue) -> CueRow:
    wait = FOLLOW if cue.follow else str(cue.wait or GO)
    loop = f"{cue.loop} x {cue.times}" if cue.times else cue.loop
    return CueRow(cue.name, cue.words, cue.snapshot or 0, str(cue.glide or ""), wait, loop)


@dataclass(frozen=True, slots=True)
class WordsKnown:
    """The only words that the model knows; None if it takes any sentence."""

    vocabulary: Vocabulary | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a message of `client`."""

    client: str
    address: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop serving and end the process."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Pages can be opened from now on."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The web process's event loop runs."""


@dataclass(frozen=True, slots=True)
class Say:
    """A page's OSC-like message; answers go to the client of the origin's name."""

    address: str
    args: tuple[Any, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Watch:
    """The kinds of pictures that some page watches."""

    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class SaveShow:
    """Make a show file and answer with `ShowAnswer`.

    Attributes:
        number: tells this request from others; the answer has the same.
    """

    number: int


@dataclass(frozen=True, slots=True)
class OpenShow:
    """Check a show file and answer with `ShowAnswer`.

    Attributes:
        number: as in `SaveShow`.
        data: the file.
        replace: whether to replace the show by it, after the check.
        origin: who sent it.
    """

    number: int
    data: bytes
    replace: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class ShowAnswer:
    """The answer to `SaveShow` or `OpenShow`.

    Attributes:
        number: that of the request.
        data: the file that was made.
        found: of a file that was opened or checked: program, and how many snapshots, bindings, controls and
            cues it holds.
        error, remedy: why it was refused and what to do; empty if it was not.
    """

    number: int
    data: bytes = b""
    found: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class FindInputs:
    """Look for sources and answer with `InputsFound`."""


News = (
    ControlsChanged
    | ReadingsChanged
    | ErrorsReported
    | InputsFound
    | SnapshotsStored
    | MidiState
    | ChangesPending
    | CuesTold
    | WordsKnown
    | Reply
)
"""What is passed on to pages."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that has changed since the last batch, in order."""

    news: tuple[News | ShowAnswer, ...]


ToWeb = Batch | Stop
"""From the bridge process to the web process."""

FromWeb = Serving | Alive | Say | Watch | FindInputs | SaveShow | OpenShow
"""From the web process to the bridge process."""

TO_WEB: tuple[type[ToWeb], ...] = get_args(ToWeb)
FROM_WEB: tuple[type[FromWeb], ...] = get_args(FromWeb)
