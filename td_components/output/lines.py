"""The lines of a file that is read, and errors that name the file and the line."""

from __future__ import annotations

from dataclasses import dataclass


class GrammarError(Exception):
    """A file does not follow the format.

    Args:
        path: the file, relative to the folder that was read.
        reason: what is wrong.
        line: its number from 1; 0 when no single line is at fault.
    """

    def __init__(self, path: str, reason: str, line: int = 0) -> None:
        super().__init__(f"{path}{f':{line}' if line else ''}: {reason}")
        self.path, self.reason, self.line = path, reason, line


@dataclass
class Lines:
    """The lines of one file, with errors that name it."""

    path: str
    lines: list[str]
    at: int = 0

    def error(self, reason: str) -> GrammarError:
        """An error at the line that was read last."""
        return GrammarError(self.path, reason, self.at)

    def next(self) -> str:
        """The next line."""
        if self.at >= len(self.lines):
            raise self.error("the file ends too early")
        self.at += 1
        return self.lines[self.at - 1]

    def peek(self) -> str:
        """The next line, without taking it; empty at the end."""
        return self.lines[self.at] if self.at < len(self.lines) else ""

    def expect(self, wanted: str) -> None:
        """Take one line that must be `wanted`."""
        found = self.next()
        if found != wanted:
            raise self.error(f"{wanted!r} was expected, {found!r} stands there")

    def done(self) -> None:
        """No line may follow."""
        if self.at < len(self.lines):
            self.at += 1
            raise self.error(f"{self.lines[self.at - 1]!r} stands after the end")
