"""`tidecast show`: the show of a state folder as one file, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.terminal import PrintableConsole
from bridge.control.files import state_dir as folder_of
from bridge.control.files import write_atomically
from bridge.show import folder
from bridge.show.show_file import MAX_BYTES, ShowError
from bridge.table import TABLE

app = typer.Typer(
    help="A show in one file: snapshots, MIDI bindings, cues.", no_args_is_help=True, add_completion=False
)
console = PrintableConsole()

File = Annotated[Path, typer.Argument(help="The show file, by convention NAME.tidecast.")]
StateDir = Annotated[str, typer.Option(help="Folder of snapshots, bindings and cues; empty for the user's own.")]


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command("export")
def export_show(
    file: File,
    state_dir: StateDir = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write snapshots, MIDI bindings and cues into one file. The page also saves the values of the controls."""
    if file.exists() and not force:
        raise ShowError(f"There is a file {str(file)!r} already.", "Give another name, or --force to replace it.")
    data, show = folder.save(folder_of(state_dir), TABLE)
    try:
        write_atomically(file, data)
    except OSError as error:
        raise ShowError(f"{file} cannot be written ({error.strerror}).", "Give another place.") from error
    _say(f"Written: {file} ({show.words})")


@app.command("import")
def import_show(file: File, state_dir: StateDir = "") -> None:
    """Replace snapshots, MIDI bindings and cues by those of a file. What there was is kept in a file beside them."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ShowError(f"{file} cannot be read ({error.strerror}).", "Give the path of a show file.") from error
    show, kept = folder.open_show(folder_of(state_dir), data, TABLE)
    _say(f"Imported: {replace(show, controls={}).words}")
    if show.controls:
        _say("The values of its controls are set only where the page opens the show while Tidecast runs.")
    if kept is not None:
        _say(f"What there was: {kept}. To bring it back, import that file.")
