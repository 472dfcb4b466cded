"""The messages between a window's process and the bridge process; pictures go through a frame ring instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args


@dataclass(frozen=True, slots=True)
class Showing:
    """The window is open.

    Attributes:
        where: the display, in words.
    """

    where: str


@dataclass(frozen=True, slots=True)
class Alive:
    """The window's loop runs; sent a few times a second.

    Attributes:
        shown: pictures shown since the window was opened.
    """

    shown: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The window cannot be opened or has been lost; the process ends. A message and what to do about it."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Close the window and end the process."""


ToWindow = Stop
FromWindow = Showing | Alive | Failed

TO_WINDOW: tuple[type[ToWindow], ...] = (Stop,)
FROM_WINDOW: tuple[type[FromWindow], ...] = get_args(FromWindow)
