"""`tidecast td`: generate, check and install the TouchDesigner component.

Passes the table of controls to the component's generator as plain data, so that `td_components` imports neither engine
nor bridge.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer

from bridge.cli.terminal import PrintableConsole
from bridge.control.table import ControlTable
from bridge.pipeline.readings import STATES
from bridge.table import TABLE
from engine.control import PREFIX
from td_components import check as checker
from td_components import generate as generator
from td_components import install as installer
from td_components.definition.spec import HERE

app = typer.Typer(help="The TouchDesigner component.", no_args_is_help=True, add_completion=False)
console = PrintableConsole()


def table(rows: ControlTable = TABLE) -> dict[str, Any]:
    """A table of controls, commands and readings as plain data."""
    return {
        "version": metadata.version("tidecast"),
        "prefix": PREFIX,
        "states": list(STATES),
        "controls": [_plain(c.described(), without=("glides",)) for c in rows.controls],
        "commands": [_plain(dataclasses.asdict(c)) for c in rows.commands],
        "telemetry": [_plain(dataclasses.asdict(r)) for r in rows.readings],
    }


def _plain(row: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A row as JSON would return it: tuples become lists, enumerations their words."""

    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return {k: str(v) if k == "kind" else plain(v) for k, v in row.items() if k not in without}


@app.command()
def generate(
    check: Annotated[bool, typer.Option("--check", help="Only list what is out of date; exit 1 if anything.")] = False,
) -> None:
    """Regenerate the component from the table of controls (in a checkout)."""
    changed = generator.stale(table()) if check else generator.write(table())
    for path in changed:
        console.print(f"{'stale' if check else 'written'}: {path}", highlight=False, soft_wrap=True, markup=False)
    if not changed:
        console.print("Everything is up to date.")
    elif check:
        raise typer.Exit(1)


@app.command("check")
def check_tree(
    folder: Annotated[Path, typer.Argument(help="Folder with NAME.tox.dir and NAME.tox.toc.")] = HERE,
) -> None:
    """Check an expanded component against the grammar and the allow-list of names."""
    raise typer.Exit(checker.main([str(folder)]))


@app.command()
def install(
    touchdesigner: Annotated[
        Path | None, typer.Option(help="Folder in which TouchDesigner is installed; by default it is searched for.")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option(help="Documents folder that holds Derivative/Palette; by default the user's.")
    ] = None,
) -> None:
    """Make Tidecast.tox with the installed TouchDesigner and put it into its palette."""
    try:
        tool = installer.tool_in(touchdesigner) if touchdesigner else _newest_tool()
        target = installer.install(tool, documents or Path(platformdirs.user_documents_dir()))
    except installer.InstallError as error:
        console.print(str(error), highlight=False, soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    console.print(f"Made with {tool}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"Installed: {target}", highlight=False, soft_wrap=True, markup=False)
    console.print("In TouchDesigner: palette, My Components, drag Tidecast into your network.")
    console.print("Not yet confirmed by a person in TouchDesigner: press Selftest on its page Health first.")


def _newest_tool() -> Path:
    found = installer.tools(sys.platform, os.environ)
    if found:
        return found[0]
    if sys.platform in ("win32", "darwin"):
        raise installer.InstallError(
            "TouchDesigner was not found on this machine.",
            f"Name its folder with --touchdesigner. Or: {installer.by_hand()}",
        )
    raise installer.InstallError(
        "TouchDesigner does not exist for this system.",
        f"Run this command on the machine with TouchDesigner. Or: {installer.by_hand()}",
    )


@app.command()
def path() -> None:
    """Print the folder of the component: the expanded tree, the builder, the layouts and guides."""
    console.print(str(HERE), highlight=False, soft_wrap=True, markup=False)
