"""Addresses of sources and sinks, `transport:name`, such as `ndi:STUDIO (OBS)`: which are valid, who may choose them.

Nothing here opens anything: an address is judged by its characters and by the table of transports.
"""

from __future__ import annotations

import re

from bridge.video.names import FILE_ENDINGS
from bridge.video.table import OpenedBy, Transport, find, rows
from engine.errors import TransportError

MAX_CHARACTERS = 1024
"""Longest address of an input. Addresses come from the network and are stored, echoed and shown."""

_PATH = re.compile(rf"(~|\.{{1,2}}|[A-Za-z]:)?[\\/].*|[^:\\/]+[\\/].*|[^:]*\.({'|'.join(FILE_ENDINGS)})", re.I | re.S)
"""What is taken for a plain path: text that begins as a path does, holds folders, or ends as in `FILE_ENDINGS`."""

MAX_INDEX_DIGITS = 4
"""Longest index into the list of inputs."""


def parse_uri(uri: str) -> tuple[str, str]:
    """Split `transport:name`. A plain path, such as `clips/loop.mp4` or `C:\\clips\\loop.mp4`, is a file.

    Quotes around the whole address, or around the path of a file, are left out: Windows' Explorer copies paths in them.

    Raises:
        TransportError: no such transport; the remedy names those that exist.
    """
    address = _unquoted(uri, "\"'")
    scheme, colon, name = address.partition(":")
    scheme = scheme.lower()
    if find(scheme if colon else "") is None and _PATH.fullmatch(address):
        return "file", address
    if not colon or find(scheme) is None:
        known = ", ".join(f"{row.scheme}:" for row in rows())
        raise TransportError(f"{_shown(uri)} names no video transport.", f"It must begin with one of {known}")
    return scheme, _unquoted(name, '"') if scheme == "file" else name.strip()


def check_input(uri: str) -> None:
    """Refuse an address that no transport can ever open as an input. Touches neither disk nor network.

    Raises:
        TransportError: it is too long, holds control characters, names no transport that has inputs, or has a name
            that no input of this transport can have.
    """
    if len(uri) > MAX_CHARACTERS:
        raise TransportError(
            f"The address {_shown(uri)} has {len(uri)} characters.", f"An address can have {MAX_CHARACTERS} at most."
        )
    if any(ord(c) < 32 or ord(c) == 127 for c in uri):
        raise TransportError(f"The address {_shown(uri)} holds control characters.", "Remove them.")
    row, name = _split(uri)
    if not row.reads:
        able = ", ".join(f"{r.scheme}:" for r in rows() if r.reads)
        raise TransportError(f"{row.scheme}: has no input ({_shown(uri)}).", f"Choose one of {able}")
    if row.check is not None:
        row.check(name)


def check_output(uri: str) -> None:
    """Refuse an address that no transport can ever open as an output. Touches neither disk nor network.

    Raises:
        TransportError: it names no transport that has outputs, or has a name that no output of this transport can have.
    """
    row, name = _split(uri)
    if not row.writes:
        able = ", ".join(f"{r.scheme}:" for r in rows() if r.writes)
        raise TransportError(f"{row.scheme}: has no output ({_shown(uri)}).", f"Choose one of {able}")
    if row.check_output is not None:
        row.check_output(name)


def check_choice(text: str) -> None:
    """Refuse a value of the control `input` that can never be obeyed; it may be empty, an index or an address.

    Raises:
        TransportError: it is an index of too many digits, or `check_input` refuses it.
    """
    text = text.strip()
    if not text:
        return
    if not text.isdecimal():
        check_input(text)
    elif len(text) > MAX_INDEX_DIGITS:
        raise TransportError(
            f"There is no input number {text[:20]}...", f"An index has {MAX_INDEX_DIGITS} digits at most."
        )


def opened_by(uri: str) -> OpenedBy:
    """Who may choose this address as the input. Touches neither disk nor network.

    Raises:
        TransportError: no such transport.
    """
    row, name = _split(uri)
    return OpenedBy.OPERATOR if row.is_remote is not None and row.is_remote(name) else row.opened_by


def _split(uri: str) -> tuple[Transport, str]:
    scheme, name = parse_uri(uri)
    row = find(scheme)
    assert row is not None
    return row, name


def _unquoted(text: str, quotes: str) -> str:
    """The text without white space around it and without one pair of these quotes."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] in quotes and text[-1] == text[0]
    return text[1:-1].strip() if quoted else text


def _shown(uri: str) -> str:
    return repr(uri) if len(uri) <= 60 else f"{uri[:60]!r}..."
