"""Commands that are imported only when they are used: `tidecast run` must not wait for torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from engine.errors import ConfigError


class LazyGroup(TyperGroup):
    """A group whose commands may be defined in other modules, imported when they are used.

    Attributes:
        parts: command name -> (module, name of a `typer.Typer` or a function in it, one line of help).
    """

    parts: ClassVar[dict[str, tuple[str, str, str]]] = {}

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, including those that are not imported yet."""
        return [*super().list_commands(ctx), *self.parts]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help from each command's line, without importing the commands."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; imports its module if needed."""
        if cmd_name not in self.parts:
            return super().get_command(ctx, cmd_name)
        module, name, help_text = self.parts[cmd_name]
        if self._listing:
            return TyperCommand(cmd_name, help=help_text)
        try:
            found = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            words = f"{_words(ctx)} {cmd_name}".strip()
            raise ConfigError(
                f"tidecast {words} is for developers and is not part of the installed package.",
                f"Run it in a checkout: python3 -m bridge {words}",
            ) from None
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command(cmd_name)(found)
            found = alone
        command = typer.main.get_command(found)
        command.name = cmd_name
        command.help = command.help or help_text
        return command


class LateHelp(TyperCommand):
    """A command whose help lists things that may be added after the import, such as transports.

    Attributes:
        fills: name -> function whose result replaces `{name}` in the help of an option when the help is shown.
    """

    fills: ClassVar[Mapping[str, Callable[[], str]]] = {}

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with its placeholders filled in."""
        written = [(option, option.help) for option in self.params if isinstance(option, TyperOption) and option.help]
        try:
            for option, text in written:
                for name, fill in self.fills.items():
                    text = text.replace(f"{{{name}}}", fill())
                option.help = text
            super().format_help(ctx, formatter)
        finally:
            for option, text in written:
                option.help = text


def _words(ctx: Any) -> str:
    """The names of a context's commands, without the program's own."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name)
        ctx = ctx.parent
    return " ".join(words)
