"""The messages between the web process and a page over WebSockets, and the checks of what a page sends.

`/api/socket` carries JSON texts. To the page: `PageNews`. From the page: `PageSays` as
`{"address": "/tidecast/strength", "args": [0.5]}`, or `PageAsks` as `{"ask": "inputs"}`.

`/api/preview` carries JSON texts from the page, `PageWatches` as `{"watch": ["output", "input"]}` and `PageDrew` as
`"drawn"`, and to the page binary messages: `gallery.HEADER`, then a JPEG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from engine.errors import ControlError

MAX_ADDRESS = 200
MAX_ARGUMENTS = 8


class PageNews(TypedDict, total=False):
    """What changed since the last message; the first message to a page holds everything.

    Keys:
        you: the page's own name as an origin; only in the first message.
        controls: name -> [value, origin].
        readings: name -> value.
        errors: [Unix time in s, topic, reason], oldest first.
        history: the last two minutes of points; only in the first message.
        point: [latency in ms, 95th percentile of it in ms, output's rate in 1/s], twice a second.
        clients: how many pages are connected; only in the first message.
        inputs: {uri, title, width, height, fps} of every source; null before the first search.
        snapshots: numbers of the stored snapshots.
        midi: {learning, bindings, ports}; {} without MIDI.
        replies: [address, arguments] of every answer to this page.
    """

    you: str
    controls: dict[str, Any]
    readings: dict[str, Any]
    errors: list[Any]
    history: list[list[float]]
    point: list[float]
    clients: int
    inputs: list[dict[str, Any]] | None
    snapshots: list[int]
    midi: dict[str, Any]
    replies: list[Any]


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
