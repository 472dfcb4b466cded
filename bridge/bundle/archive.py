"""Sizes, and the zip of a folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from bridge.cli.terminal import PrintableConsole

STORED = {".safetensors", ".pth", ".pt", ".zip"}
"""Ends of the names of files that do not become smaller."""

CHUNK = 1 << 20


def files(folder: Path) -> list[Path]:
    """Every file in a folder, but for those whose path begins with a dot, in a fixed order."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not path.relative_to(folder).parts[0].startswith(".")]


def size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in files(folder))


def pack(folder: Path, console: PrintableConsole) -> Path:
    """Write `FOLDER.zip` beside the folder, with the folder in it, and return its path."""
    target = folder.with_name(f"{folder.name}.zip")
    part = target.with_name(f"{target.name}.part")
    columns = (TextColumn("packing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=size(folder))
        with zipfile.ZipFile(part, "w", compresslevel=6) as archive:
            for path in files(folder):
                method = zipfile.ZIP_STORED if path.suffix in STORED else zipfile.ZIP_DEFLATED
                entry = zipfile.ZipInfo.from_file(path, Path(folder.name) / path.relative_to(folder))
                entry.compress_type = method
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                    while block := source.read(CHUNK):
                        packed.write(block)
                        bars.advance(task, len(block))
    part.replace(target)
    return target
