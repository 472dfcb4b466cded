"""`tidecast bundle windows`: a folder and a zip with all that Windows needs to run Tidecast."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from bridge.bootstrap import EXTRAS
from bridge.bundle import archive, licences, starters, windows
from bridge.bundle.uv import BundleError
from bridge.cli.terminal import PrintableConsole
from bridge.pins import files

ALWAYS = tuple(EXTRAS["bridge"].split(","))
"""The extras that the ordinary start installs too."""

app = typer.Typer(help="Folders that run without an installation.", no_args_is_help=True, add_completion=False)
console = PrintableConsole()


@app.callback()
def bundle() -> None:
    """Make a folder that runs without an installation."""


@app.command("windows")
def windows_command(
    out: Annotated[Path, typer.Option(help="The folder to make; its zip is put beside it.")],
    gpu: Annotated[str, typer.Option(help="Build of torch: cpu, " + ", ".join(files.GPU_BUILDS))] = "cpu",
    models: Annotated[str, typer.Option(help="Models whose files are put in, as in: wan21-1.3b,longlive-1.3b")] = "",
    vae: Annotated[str, typer.Option(help="Their autoencoder: full, light, tiny, light-tiny or all.")] = "all",
    text: Annotated[bool, typer.Option(help="Put in their text encoder.")] = True,
    prompts: Annotated[bool, typer.Option(help="Put in the prompts that were encoded on this machine.")] = False,
    extra: Annotated[str, typer.Option(help="Extras besides midi and web, separated by commas.")] = "",
    torch_index: Annotated[
        str, typer.Option(help="Address of an index with the GPU build; by default that of torch's makers.")
    ] = "",
    zip: Annotated[bool, typer.Option(help="Write the zip.")] = True,
) -> None:
    """Make a folder for Windows that needs no installation, no administrator and no internet.

    Run again, it goes on where it was interrupted, and takes from it what is already there.
    """
    if gpu != "cpu" and gpu not in files.GPU_BUILDS:
        raise typer.BadParameter(f"choose cpu, {', '.join(files.GPU_BUILDS)}", param_hint="--gpu")
    if torch_index and gpu == "cpu":
        raise typer.BadParameter("is for a GPU build: give --gpu too", param_hint="--torch-index")
    recipe = windows.Recipe(gpu=gpu, extras=wanted_extras(extra), torch_index=torch_index, say=_say)
    folder = out.expanduser().absolute()
    windows.make(folder, recipe)
    weights = put_models([name for name in models.split(",") if name], folder / starters.CACHE / "models", vae, text)
    if prompts:
        put_prompts(folder / starters.CACHE / "prompts")
    finish(folder, gpu, weights)
    if deep := windows.too_long(folder):
        _say(f"Put the folder at a short path: {max(deep, key=len)} in it is long, and Windows takes 259 characters.")
    written = archive.pack(folder, console) if zip else None
    _say(f"{folder}: {archive.size(folder) / 1e6:.0f} MB in {len(archive.files(folder))} files")
    if written:
        _say(f"{written}: {written.stat().st_size / 1e6:.0f} MB")


def wanted_extras(asked: str) -> tuple[str, ...]:
    """The extras that are put in: those of the ordinary start, and those that were asked for.

    Raises:
        BadParameter: if one is not for users, or unknown.
    """
    wanted = dict.fromkeys([*ALWAYS, *(name.strip() for name in asked.split(",") if name.strip())])
    for name in wanted:
        if name not in files.extras():
            raise typer.BadParameter(f"choose among {', '.join(files.extras())}", param_hint="--extra")
    return tuple(wanted)


def put_models(names: list[str], target: Path, vae: str, text: bool) -> list[tuple[str, str]]:
    """Put the files of models into a folder: from this machine if they are here, else from the hub; all are checked.

    Returns:
        Name and licence of each model that has files.
    """
    if not names:
        return []
    from bridge.cli.models import chosen, progress
    from engine.models import weights

    put = []
    for name in names:
        spec, wanted = chosen(name, vae, text)
        for file in wanted:
            here, there = weights.find(file, weights.folder()), target / file.repository / file.path
            if here and not there.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                part = there.with_name(f"{there.name}.copy")
                shutil.copy(here, part)
                part.replace(there)
        with progress("getting") as report:
            weights.pull(wanted, target, report)
        with progress("reading") as report:
            wrong = [verdict for verdict in weights.verify(wanted, target, report) if not verdict.state.fine]
        if wrong:
            names_of_files = ", ".join(verdict.file.path for verdict in wrong)
            raise BundleError(f"{name}: {names_of_files}: {wrong[0].state.value}.", f"Remove them from {target}.")
        if wanted:
            put.append((spec.name, spec.licence or "see the model's page"))
    return put


def put_prompts(target: Path) -> None:
    """Copy the prompts that were encoded on this machine.

    Raises:
        BundleError: if there are none.
    """
    from engine.models.cache_folder import cache_folder

    source = cache_folder() / "prompts"
    if not source.is_dir():
        raise BundleError("No prompt was encoded on this machine.", "Run: tidecast models encode-prompts FILE")
    shutil.copytree(source, target, dirs_exist_ok=True)


def finish(folder: Path, gpu: str, weights: list[tuple[str, str]]) -> None:
    """Write the files at the top of the folder, and say which terms to know."""
    found = licences.packages(folder)
    versions = {package.name: package.version for package in found}
    torch = f"{versions['torch']}, {'for CPUs' if gpu == 'cpu' else f'for NVIDIA cards ({gpu})'}"
    starters.write(folder, version=metadata.version("tidecast"), torch=torch)
    (folder / "LICENCES.txt").write_text(licences.text(found, weights), "utf-8", newline="\r\n")
    _say("To pass the folder on, read LICENCES.txt in it: NDI, FFmpeg's encoders and torch have terms of their own.")
    for package in found:
        if package.copyleft:
            _say(f"{package.name} is under {package.licence}: so is what you pass on with it.")


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
