"""Text from strangers on a terminal or in a log: control characters are shown, not obeyed.

Prompts, OSC addresses and names of sources come from whoever sends them. An escape sequence in one of them could clear
the operator's terminal, change its title or, with a line break, write a line of the log that never happened.
"""

from __future__ import annotations

import logging
import types

_CONTROL = [
    *range(0x20),
    *range(0x7F, 0xA0),
    *(0x2028, 0x2029),  # line and paragraph separator
    *range(0x202A, 0x202F),  # they turn the direction of what follows
    *range(0x2066, 0x206A),
]
_SHOWN = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROL}
_SHOWN[ord("\n")], _SHOWN[ord("\t")] = "\\n", "\\t"
_IN_LINES = {code: shown for code, shown in _SHOWN.items() if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """The text with every control character in Python's notation, such as `\\x1b`; line breaks and tabs stay."""
    return text.translate(_IN_LINES)


def one_line(text: str) -> str:
    """The same with line breaks and tabs in Python's notation, too."""
    return text.translate(_SHOWN)


class PrintableFormatter(logging.Formatter):
    """Formats a message as one line without control characters; only a traceback has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of the record."""
        return one_line(super().formatMessage(record))

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, types.TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """The traceback."""
        return printable(super().formatException(ei))
