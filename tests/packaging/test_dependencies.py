"""Every library that the code imports is declared in pyproject.toml: a library that only comes along with another one
is missing on the day the other one no longer needs it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from bridge.bootstrap import ROOT

PACKAGES = ("engine", "bridge", "td_components")
OURS = {*PACKAGES, "configs"}

IN_A_CHECKOUT = ("engine/models/ember/training", "bridge/drills")
"""Folders that are not installed: they may use the developers' libraries."""

OPTIONAL = {
    "engine/models/wan21": "wan",
    "engine/models/wan21/norm_silu_triton.py": "kernels",
    "engine/runtime/quantise_triton.py": "kernels",
    "bridge/control/midi": "midi",
    "bridge/bench/photographs.py": "dev",  # says which library brings the photographs
}
"""Folders and modules that are imported only where their extra is wanted, and the extra. Elsewhere the import of an
extra's library is inside `try`, with an answer to `ImportError`."""

CALLED_OTHERWISE = {"link": ["linkpython-extern"]}
"""Modules of extras that no start installs, and their distributions."""

IN_NO_REGISTRY = {
    "flash_attn_interface": "FlashAttention 3, built from its source",
    "models": "the published implementation that `engine.bench.reference` compares with",
    "td": "part of TouchDesigner",
}


@dataclass(frozen=True, slots=True)
class Import:
    """A module of a library that a file imports, by its first name."""

    module: str
    path: str
    line: int
    guarded: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def imports(path: Path) -> Iterator[Import]:
    """The imports of a file, also those inside functions and those with `import_module("name")`."""

    def walk(node: ast.AST, guarded: bool) -> Iterator[Import]:
        names: list[str] = []
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                names = [module]
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                names = [name]
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return
            case ast.Try():
                caught = any("ImportError" in ast.unparse(handler.type) for handler in node.handlers if handler.type)
                for child in node.body:
                    yield from walk(child, guarded or caught)
                for child in (*node.handlers, *node.orelse, *node.finalbody):
                    yield from walk(child, guarded)
                return
        for name in names:
            yield Import(name.partition(".")[0], path.relative_to(ROOT).as_posix(), node.lineno, guarded)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, guarded)

    yield from walk(ast.parse(path.read_text("utf-8")), False)


def normal(name: str) -> str:
    """The name of a distribution as registries compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> dict[str, set[str]]:
    """The distributions of each extra; those that are always installed under the empty name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines} for extra, lines in asked.items()
    }


def missing(found: Import, extras: dict[str, set[str]], known: dict[str, list[str]]) -> bool:
    """Whether nothing that is declared brings what is imported there."""
    # A library for another system is not installed here; its distribution has the name of its module.
    unknown = CALLED_OTHERWISE.get(found.module, [found.module, f"{found.module}-python"])
    sources = {normal(name) for name in known.get(found.module, unknown)}
    allowed = set(extras[""])
    if found.path.startswith(IN_A_CHECKOUT):
        allowed |= extras["dev"]
    for folder, extra in OPTIONAL.items():
        if found.path.startswith(folder):
            allowed |= extras[extra]
    if found.guarded:
        allowed |= {name for extra, names in extras.items() if extra != "dev" for name in names}
    return not sources & allowed


def third_party() -> list[Import]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    strangers = (found for path in files for found in imports(path))
    return [
        found
        for found in strangers
        if found.module not in sys.stdlib_module_names
        and found.module not in OURS
        and found.module not in IN_NO_REGISTRY
        # scripts of the component, which see each other in TouchDesigner
        and not found.path.startswith("td_components/scripts/")
    ]


def test_every_library_that_is_imported_is_declared() -> None:
    extras, known = declared(), dict(packages_distributions())
    assert [str(found) for found in third_party() if missing(found, extras, known)] == []


def test_imports_are_found_wherever_they_stand() -> None:
    modules = {found.module for found in third_party()}
    assert {"torch", "numpy", "NDIlib", "SpoutGL"} <= modules, "at the top, and by name"
    assert {"tqdm", "filelock", "huggingface_hub"} <= modules, "inside functions"


@pytest.mark.parametrize(
    ("text", "path", "wrong"),
    [
        ("import tqdm", "engine/a.py", False),
        ("def f():\n    from unheard.of import it", "engine/a.py", True),
        ("import mido", "engine/a.py", True),
        ("import mido", "bridge/control/midi/a.py", False),
        ("try:\n    import mido\nexcept ImportError:\n    mido = None", "engine/a.py", False),
        ("try:\n    import mido\nexcept OSError:\n    mido = None", "engine/a.py", True),
        ("import pytest", "engine/a.py", True),
        ("try:\n    import pytest\nexcept ImportError:\n    pass", "engine/a.py", True),
    ],
)
def test_what_is_not_declared_is_found(
    text: str, path: str, wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (found,) = imports(file)
    monkeypatch.undo()
    assert missing(found, declared(), dict(packages_distributions())) is wrong
