"""The interface of a dialect, which translates another program's OSC messages, and helpers that dialects share."""

from __future__ import annotations

import abc
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from bridge.control.table import ControlTable
from engine.coercion import as_switch
from engine.controls import PROMPT_SLOTS
from engine.errors import ControlError

Changes = Mapping[str, Any]
"""Controls by name, with values as received; `reset` requests a reset, `recall` the snapshot of that number, and `send`
messages: (address below `PREFIX`, arguments) each."""


class Dialect(abc.ABC):
    """Translates the messages of one other program, the peer.

    Args:
        table: the controls that its messages change.

    Attributes:
        name: as on the command line.
        port: UDP port on which the peer listens.
        answer_port: UDP port to which the peer reports; 0 if it does not.
        peer: host and UDP port to which reports go when nothing has come yet; None if the peer speaks first.
        values: addresses of which only the newest message counts.
        ignored: addresses that are accepted and have no counterpart in Tidecast, with the reason.
    """

    name: str
    port: int
    answer_port: int = 0
    peer: tuple[str, int] | None = None
    values: frozenset[str]
    ignored: ClassVar[Mapping[str, str]]

    def __init__(self, table: ControlTable) -> None:
        self.table = table

    @abc.abstractmethod
    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """The changes that a message makes.

        Raises:
            ControlError: if the peer has no such address or the arguments are not as documented.
        """

    def report(self, readings: Mapping[str, Any], elapsed: float) -> list[tuple[str, Any]]:
        """What the peer would report now, as (address, value), `elapsed` seconds after the last report. The value None
        stands for a message without arguments."""
        return []

    def complain(self, address: str, reason: str) -> list[tuple[str, Any]]:
        """How the peer would report an error."""
        return []


def number(address: str, args: Sequence[Any]) -> float:
    """The one argument as a finite number.

    Raises:
        ControlError: if there is not exactly one argument, or it is not a finite number.
    """
    if len(args) != 1:
        raise ControlError(address, f"One number is needed, got {len(args)} values.")
    try:
        value = float(args[0])
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ControlError(address, f"{args[0]!r:.60} is not a number.")
    return value


def pairs_of(address: str, args: Sequence[Any]) -> list[tuple[Any, float]]:
    """The argument as JSON [[value, weight], ...], heaviest first, negative weights as 0.

    Raises:
        ControlError: if it is not that, or the list is empty.
    """
    try:
        (text,) = args
        pairs = [(value, max(0.0, float(weight))) for value, weight in json.loads(text)]
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ControlError(address, "A JSON list of [value, weight] pairs is needed.") from None
    if not pairs:
        raise ControlError(address, "The list is empty.")
    return sorted(pairs, key=lambda pair: -pair[1])


def prompt_alone(text: Any) -> dict[str, Any]:
    """The changes that show one prompt alone."""
    return {"prompt_1": text, **{f"weight_{n}": float(n == 1) for n in range(1, PROMPT_SLOTS + 1)}}


def switch(address: str, value: Any) -> bool:
    """An argument as a switch, on or off.

    Raises:
        ControlError: if it is neither.
    """
    found = as_switch(value)
    return wrong(address, "on or off") if found is None else found


def wrong(address: str, want: str) -> NoReturn:
    """Refuse the arguments of a message.

    Raises:
        ControlError: always; `want` says what the arguments must be.
    """
    raise ControlError(address, f"The arguments must be {want}.")
