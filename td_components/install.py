"""Turns the expanded component into `Tidecast.tox` with TouchDesigner's own tool and puts it into the palette.

Only TouchDesigner's `toecollapse` writes the binary `.tox` format. Not yet run with a real TouchDesigner; the tests use
a stand-in that takes the same arguments.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from td_components.definition.network import NAME
from td_components.definition.spec import HERE

SECONDS = 120
"""Longest time that toecollapse may take."""


class InstallError(Exception):
    """The component could not be installed.

    Args:
        message: what was wrong.
        remedy: what to do instead.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.message, self.remedy = message, remedy


def by_hand(folder: Path = HERE) -> str:
    """How to build the component without `toecollapse`."""
    return (
        f"Inside TouchDesigner, drop {folder / 'build_in_td.py'} into a network and choose Run Script on it: it "
        f"builds the component and saves {NAME}.tox beside the project."
    )


def tools(platform: str, environment: Mapping[str, str], root: Path = Path("/")) -> list[Path]:
    """Every `toecollapse` of an installed TouchDesigner, the newest first.

    Args:
        platform: `sys.platform`.
        environment: `os.environ`; on Windows it names the program folders.
        root: the file system's root; tests pass a folder.
    """
    if platform == "win32":
        found = [
            tool
            for key in ("ProgramFiles", "ProgramW6432")
            if environment.get(key)
            for tool in Path(environment[key]).glob("Derivative/TouchDesigner*/bin/toecollapse.exe")
        ]
    elif platform == "darwin":
        found = list((root / "Applications").glob("TouchDesigner*.app/Contents/MacOS/toecollapse"))
    else:
        found = []
    return sorted(set(found), key=_version, reverse=True)


def _version(tool: Path) -> tuple[list[int], str]:
    """The build number in the name of an installation's folder; one without a number counts as the newest."""
    numbers = [int(n) for part in tool.parts if "TouchDesigner" in part for n in re.findall(r"\d+", part)]
    return numbers or [1 << 30], str(tool)


def tool_in(place: Path) -> Path:
    """The `toecollapse` at a path given by the user: the tool itself, its folder, the installation or the app.

    Raises:
        InstallError: if there is none.
    """
    candidates = [place] if place.stem == "toecollapse" else []
    for folder in (place, place / "bin", place / "Contents" / "MacOS"):
        candidates += [folder / "toecollapse.exe", folder / "toecollapse"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InstallError(f"There is no toecollapse in {place}.", "Name the folder in which TouchDesigner is installed.")


def collapse(tool: Path, source: Path = HERE) -> bytes:
    """Run `toecollapse` on a copy of the expanded component and return the `.tox`.

    Its exit code is ignored, because it is known to return 1 on success; the result is judged by the file.

    Raises:
        InstallError: if no `.tox` is written.
    """
    with tempfile.TemporaryDirectory(prefix="tidecast-") as name:
        folder = Path(name)
        shutil.copytree(source / f"{NAME}.tox.dir", folder / f"{NAME}.tox.dir")
        shutil.copy(source / f"{NAME}.tox.toc", folder)
        try:
            done = subprocess.run(
                [str(tool), f"{NAME}.tox"],
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"{tool} could not be run: {error}.", by_hand(source)) from None
        made = folder / f"{NAME}.tox"
        if not made.is_file() or not made.stat().st_size:
            said = (done.stdout + done.stderr).strip()[-300:] or "nothing"
            raise InstallError(f"{tool} made no {NAME}.tox; it said: {said}.", by_hand(source))
        return made.read_bytes()


def palette(documents: Path) -> Path:
    """The folder whose components TouchDesigner shows in its palette under My Components."""
    return documents / "Derivative" / "Palette"


def install(tool: Path, documents: Path, source: Path = HERE) -> Path:
    """Make `Tidecast.tox` and put it into the palette, replacing an older one. Returns its path.

    Args:
        tool: `toecollapse`.
        documents: the user's folder of documents.
        source: folder of the expanded component.

    Raises:
        InstallError: if toecollapse fails or the palette cannot be written.
    """
    data = collapse(tool, source)
    target = palette(documents) / f"{NAME}.tox"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(data)
        part.replace(target)
    except OSError as error:
        raise InstallError(
            f"{target} could not be written: {error.strerror}.", "Choose another folder with --documents."
        ) from None
    return target
