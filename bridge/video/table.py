"""The table of video transports: one row each. The command line, `doctor`, the page and the documents read it.

To add a transport, write a module that follows the rules of `bridge.video.base` and add a row here, or call `register`
with the row from outside.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from bridge.video.names import (
    check_camera,
    check_path,
    check_pattern,
    check_spout,
    check_window,
    is_network_path,
    is_remote_display,
)


class OpenedBy(enum.IntEnum):
    """Who may choose an input; each is a subset of the one before. `bridge.pipeline.input_policy` obeys it."""

    ANYONE = 0
    """Everybody who may send controls: it shows only what programs offer to every receiver, or a generated picture."""

    LISTED = 1
    """People at other machines, if the list of sources shows it or the settings allow it."""

    ALLOWED = 2
    """People at other machines, if the settings allow it: it shows this machine's own screen or files."""

    OPERATOR = 3
    """Only the command line and the configuration: opening it connects to a machine that its name chooses."""


_OTHER_MACHINES = {
    OpenedBy.ANYONE: "yes",
    OpenedBy.LISTED: "what the list of sources shows, and what `input.allow` names",
    OpenedBy.ALLOWED: "what `input.allow` names",
    OpenedBy.OPERATOR: "no",
}


@dataclass(frozen=True, slots=True)
class Transport:
    """The declaration of one transport.

    Attributes:
        scheme: the part of an address before the colon.
        module: where it is implemented; imported when it is first used.
        what: a short description.
        reads: what the name of an input means; empty if it cannot be an input.
        writes: what the name of an output means; empty if it cannot be an output.
        platforms: values of `sys.platform` that it works on; empty for all.
        elsewhere: what to do instead on other platforms, as a sentence.
        shown_as: how the output called `{name}` is shown to the user at the start; empty for its address.
        run_on: where it was actually run, and how it is tested otherwise, for the documents.
        opened_by: who may choose an input of this transport.
        check: raises a `TransportError` for a name that no input can ever have. It looks at the characters only, not
            at the disk or the network.
        check_output: the same for the name of an output.
        is_remote: whether opening an input of this name connects to a machine that the name chooses, so that it is
            `OpenedBy.OPERATOR`; looks at the characters only.
        alpha: whether its outputs send transparency (`Frame.alpha`).
    """

    scheme: str
    module: str
    what: str
    reads: str = ""
    writes: str = ""
    platforms: tuple[str, ...] = ()
    elsewhere: str = ""
    shown_as: str = ""
    run_on: str = ""
    opened_by: OpenedBy = OpenedBy.ALLOWED
    check: Callable[[str], None] | None = None
    check_output: Callable[[str], None] | None = None
    is_remote: Callable[[str], bool] | None = None
    alpha: bool = False


_ROWS: list[Transport] = [
    Transport(
        "ndi",
        "bridge.video.ndi.transport",
        "NDI source or output on this machine or the network",
        reads="the whole name `MACHINE (SOURCE)`, the source's name alone, a wildcard (`ndi:*OBS*`) or a part of it; "
        "empty for any source",
        writes="the name that others see",
        shown_as="NDI source {name!r}: open it in OBS, Resolume, TouchDesigner or NDI Studio Monitor",
        run_on="Linux: NDI 6.3 between processes, in every test run, also with another binding (cyndilib); OBS 30.2 "
        "with DistroAV as receiver and sender",
        opened_by=OpenedBy.ANYONE,
        alpha=True,
    ),
    Transport(
        "spout",
        "bridge.video.textures.spout",
        "Spout sender on this machine (Windows)",
        reads="the sender's name; empty for the active one",
        writes="the name that others see",
        platforms=("win32",),
        elsewhere="Spout exists on Windows only; between programs of this machine use ndi:.",
        shown_as="Spout sender {name!r}",
        run_on="Wine 10 with the real SpoutGL: contexts, names, sizes, senders that end. Never with pictures, for "
        "which a strict fake of SpoutGL stands in",
        opened_by=OpenedBy.ANYONE,
        check=check_spout,
        alpha=True,
    ),
    Transport(
        "syphon",
        "bridge.video.textures.syphon",
        "Syphon server on this machine (macOS)",
        reads="the server's or its program's name; empty for the first",
        writes="the name that others see",
        platforms=("darwin",),
        elsewhere="Syphon exists on macOS only; between programs of this machine use ndi:.",
        shown_as="Syphon server {name!r}",
        run_on="never; tested against a strict fake of syphon-python",
        opened_by=OpenedBy.ANYONE,
        alpha=True,
    ),
    Transport(
        "file",
        "bridge.video.files.file",
        "video or picture file, looped",
        reads="path of any video or picture; looped at its own rate",
        run_on="Linux",
        opened_by=OpenedBy.ALLOWED,
        check=check_path,
        is_remote=is_network_path,
    ),
    Transport(
        "camera",
        "bridge.video.devices.camera",
        "camera or capture card",
        reads="number, name or `/dev/videoN`; empty for the first",
        run_on="its reader on Linux with a synthetic device; no real camera",
        opened_by=OpenedBy.LISTED,
        check=check_camera,
    ),
    Transport(
        "screen",
        "bridge.video.devices.screen",
        "a monitor's picture",
        reads="empty for the first screen",
        run_on="Linux: X11, the display of a server without a screen (Xvfb)",
        opened_by=OpenedBy.ALLOWED,
        is_remote=is_remote_display,
    ),
    Transport(
        "pattern",
        "bridge.video.synthetic.pattern",
        "moving test picture",
        reads="`bars`, `counter`, `waves`, `dance`",
        run_on="everywhere",
        opened_by=OpenedBy.ANYONE,
        check=check_pattern,
    ),
    Transport(
        "window",
        "bridge.video.window.transport",
        "a window, or a whole display of this machine",
        writes="number of the display to fill, 1 for the main one; empty for an ordinary window",
        shown_as="window:{name} (F11 or a double click: full screen, and back)",
        run_on="Linux: Xvfb with its software drivers, read back by a screenshot; no real display",
        check_output=check_window,
    ),
    Transport(
        "null",
        "bridge.video.synthetic.null",
        "nothing: never gives a frame, throws away what it gets",
        reads="empty",
        writes="empty",
        shown_as="no output; watch the page",
        run_on="everywhere",
        opened_by=OpenedBy.ANYONE,
        alpha=True,
    ),
]


def rows() -> tuple[Transport, ...]:
    """Every transport, in the order in which lists show them."""
    return tuple(_ROWS)


def find(scheme: str) -> Transport | None:
    """The transport of this scheme, or None."""
    return next((row for row in _ROWS if row.scheme == scheme), None)


def register(row: Transport) -> None:
    """Add a transport of one's own, before the program starts.

    Raises:
        ValueError: its scheme is taken, or both `reads` and `writes` are empty.
    """
    if find(row.scheme) is not None:
        raise ValueError(f"there is already a transport {row.scheme}:")
    if not (row.reads or row.writes):
        raise ValueError(f"the transport {row.scheme}: has neither an input (reads) nor an output (writes)")
    _ROWS.append(row)


def unregister(scheme: str) -> None:
    """Remove a transport that `register` added.

    Raises:
        ValueError: there is no such transport.
    """
    row = find(scheme)
    if row is None:
        raise ValueError(f"there is no transport {scheme}:")
    _ROWS.remove(row)


def schemes(*, writes: bool = False) -> str:
    """The transports that can be an input (or an output), as help text: `ndi:, file:, camera:`."""
    return ", ".join(f"{row.scheme}:" for row in _ROWS if (row.writes if writes else row.reads))


def sends_alpha(uri: str) -> bool:
    """Whether an output sends transparency."""
    row = find(uri.partition(":")[0])
    return row is not None and row.alpha


def output_text(uri: str) -> str:
    """How an output is shown to the user at the start."""
    scheme, _, name = uri.partition(":")
    row = find(scheme)
    return row.shown_as.format(name=name) if row is not None and row.shown_as else uri


def markdown() -> str:
    """The table for the documents."""
    lines = ["| transport | input: what the name means | other machines may choose it | output | run where |"]
    lines += ["|---|---|---|---|---|"]
    for row in _ROWS:
        lines += [
            f"| `{row.scheme}:` | {row.reads or 'no'} | {_OTHER_MACHINES[row.opened_by] if row.reads else ''} "
            f"| {row.writes or 'no'} | {row.run_on} |"
        ]
    return "\n".join(lines) + "\n"
