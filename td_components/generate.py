"""Writes every generated file of this folder, or lists those that are out of date.

Generated and committed are the expanded component, `build_in_td.py`, the TouchOSC layout, the drawings of `docs`, and
`controls.json`, the table of controls as plain data. `tidecast td generate` passes that table in (`--check` only
compares).
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from td_components.definition import network
from td_components.definition.spec import HERE
from td_components.output import builder, diagrams, expanded, touchosc

TABLE = "controls.json"
LAYOUT = "docs/Tidecast.tosc"


def load_table() -> dict[str, Any]:
    """The committed table of controls."""
    table: dict[str, Any] = json.loads((HERE / TABLE).read_text(encoding="utf-8"))
    return table


def files(table: dict[str, Any]) -> dict[str, bytes]:
    """Every generated file: path relative to this folder -> contents.

    Args:
        table: the table of controls as plain data, with the version of Tidecast.
    """
    component = network.component(table, table["version"])
    return {
        TABLE: (json.dumps(table, indent=1, ensure_ascii=False) + "\n").encode("utf-8"),
        **expanded.write(component),
        "build_in_td.py": builder.write(component).encode("utf-8"),
        LAYOUT: touchosc.write(table),
        **{f"docs/{name}": data for name, data in diagrams.pictures(table, component).items()},
    }


def write(table: dict[str, Any], folder: Path = HERE) -> list[str]:
    """Write every generated file below `folder` and remove stale ones. Returns the paths that changed."""
    wanted = files(table)
    changed = stale(table, folder)
    for path in changed:
        target = folder / path
        if path in wanted:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wanted[path])
        else:
            target.unlink()
    return changed


def stale(table: dict[str, Any], folder: Path = HERE) -> list[str]:
    """Paths below `folder` that are missing or differ, or are in the expanded tree without belonging to it."""
    wanted = files(table)
    tree = folder / f"{network.NAME}.tox.dir"
    there = {p.relative_to(folder).as_posix() for p in tree.rglob("*") if p.is_file()}
    wrong = [p for p, data in wanted.items() if not _same(folder / p, data)]
    return sorted({*wrong, *(there - wanted.keys())})


def _same(path: Path, data: bytes) -> bool:
    """Whether a file holds `data`; a layout is compared decompressed, because versions of zlib compress differently."""
    if not path.is_file():
        return False
    found = path.read_bytes()
    if path.suffix == ".tosc":
        found, data = zlib.decompress(found), zlib.decompress(data)
    return found == data
