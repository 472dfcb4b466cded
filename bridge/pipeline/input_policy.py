"""Which inputs a sender may choose. docs/operators/network.md describes the rules for people.

| sender | may choose |
|---|---|
| `Trust.OPERATOR` | everything |
| `Trust.MACHINE` | everything but files and displays of other machines (`OpenedBy.OPERATOR`) |
| `Trust.NETWORK` | what `OpenedBy` offers to everybody, listed sources where it says so, and what `input.allow` lists |
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from typing import Any

from bridge.control.origin import Origin, Trust
from bridge.control.store import ControlStore
from bridge.video.address import opened_by, parse_uri
from bridge.video.base import SourceInfo
from bridge.video.table import OpenedBy
from engine.control import PREFIX
from engine.errors import ConfigError, ControlError, TransportError

RESTRICTED = ("input", "mask_input", "mask_background_input")
"""The controls that choose an input."""


def restrict_inputs(store: ControlStore, allow: Sequence[str], inputs: Callable[[], Sequence[SourceInfo]]) -> None:
    """Have `InputPolicy` decide at every control that chooses an input.

    Raises:
        ConfigError: as `InputPolicy`.
    """
    for name in RESTRICTED:
        store.restrict(name, InputPolicy(allow, inputs, PREFIX + store.table.by_name[name].address))


class InputPolicy:
    """The rule of a control that chooses an input; see `ControlStore.restrict`.

    Args:
        allow: what senders on other machines may choose besides: addresses of sources with `*` and `?`, and
            `file:FOLDER` for everything inside a folder.
        inputs: returns the last list of sources that was shown, for a choice by its number.
        address: of the control, for errors.

    Raises:
        ConfigError: if an entry of `allow` has no transport.
    """

    def __init__(
        self, allow: Sequence[str], inputs: Callable[[], Sequence[SourceInfo]], address: str = PREFIX + "/input"
    ) -> None:
        for entry in allow:
            try:
                parse_uri(entry)
            except TransportError as error:
                raise ConfigError(
                    f"input.allow: {error.message}", 'Write for example "camera:0" or "file:/shows/tonight".'
                ) from None
        self._allow = tuple(allow)
        self._inputs = inputs
        self._address = address

    def __call__(self, value: Any, origin: Origin) -> str:
        """The input to choose, `value` or the source that its number stands for.

        Raises:
            ControlError: if the sender may not choose it; the text says how the operator can allow it.
        """
        wanted = str(value).strip()
        if not wanted:
            return str(value)
        if wanted.isdecimal():
            wanted = self._numbered(wanted)
        if origin.trust >= Trust.OPERATOR:
            return wanted
        needed = opened_by(wanted)
        if needed is OpenedBy.OPERATOR:
            raise ControlError(
                self._address,
                f"{wanted[:100]!r} is on another machine, which only the command line and the configuration may name.",
                "Start Tidecast with --input and this address.",
            )
        if origin.trust >= Trust.MACHINE:
            return wanted
        if needed is OpenedBy.ANYONE:
            return wanted
        if needed is OpenedBy.LISTED and any(wanted == source.uri for source in self._inputs()):
            return wanted
        allowed = self._allowed(*parse_uri(wanted))
        if allowed is None:
            raise ControlError(
                self._address,
                f"Senders on other machines may not choose {wanted[:100]!r}.",
                f'To allow it, write it on the list allow of [input]: allow = ["{wanted[:100]}"].',
            )
        return allowed

    def _numbered(self, number: str) -> str:
        """The source of this number; the list may change later, so the number itself is not kept."""
        listed = self._inputs()
        if len(number) > 4 or int(number) >= len(listed):
            raise ControlError(
                self._address,
                f"There is no input number {number[:10]} (the list has {len(listed)}).",
                "Ask for /inputs first.",
            )
        return listed[int(number)].uri

    def _allowed(self, scheme: str, name: str) -> str | None:
        """The address to open if `input.allow` lists it; a file's path comes back without `..`."""
        for entry in self._allow:
            entry_scheme, pattern = parse_uri(entry)
            if entry_scheme != scheme:
                continue
            if scheme != "file":
                if fnmatch.fnmatchcase(name, pattern):
                    return f"{scheme}:{name}"
                continue
            path = absolute(name)
            ours, theirs = os.path.normcase(absolute(pattern)), os.path.normcase(path)
            if theirs == ours or theirs.startswith(ours.rstrip(os.sep) + os.sep):
                return f"file:{path}"
        return None


def absolute(path: str) -> str:
    """An absolute path without `..`; does not touch the disk."""
    return os.path.abspath(os.path.expanduser(path))
