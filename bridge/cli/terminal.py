"""The console of every command: what strangers have named cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from bridge.printable import one_line, printable


class PrintableConsole(Console):
    """A console that writes control characters of a text in Python's notation; rich itself lets them through."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of something to print."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def cell(text: Any) -> Text:
    """A cell of a table that holds a text as it is: on one line, and without rich's markup in brackets."""
    return Text(one_line(str(text)))
