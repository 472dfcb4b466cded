"""What is inside the portable folder and on which terms it may be passed on: `LICENCES.txt`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

NOTICES = {
    "ndi-python": "Contains the NDI library. It may be passed on under the NDI SDK licence, with the file "
    "libraries/NDIlib/Processing.NDI.Lib.Licenses.txt. NDI is a registered trademark of Vizrt NDI AB: https://ndi.video",
    "av": "Contains FFmpeg with the encoders x264 and x265, which are licensed under the GNU GPL, version 2 or later. "
    "If you pass this folder on, you have to offer their source.",
    "pysdl2-dll": "Contains SDL, and libraries that Tidecast does not load, among them libgme under the GNU LGPL 2.1.",
    "linkpython-extern": "Contains Ableton Link, which is licensed under the GNU GPL, version 2 or later. If you pass "
    "this folder on, you do so under the GPL and have to offer the source of everything in it.",
    "msvc-runtime": "Contains Microsoft's Visual C++ runtime, which may be passed on with a program that needs it.",
    "torch": "A build for NVIDIA GPUs contains NVIDIA's CUDA libraries; its licence names those that may be passed on.",
}
"""Packages that contain more than the licence in their metadata covers, and what to know about them."""

_CLASSIFIER = "License :: "
_GPL = re.compile(r"(?<![A-Za-z])A?GPL|GNU (Affero )?General Public", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Package:
    """A package in the folder.

    Attributes:
        name: its name in the registry.
        version: its version.
        licence: what its metadata say, in one line.
        path: its folder of metadata, relative to the portable folder; its licence text lies there.
    """

    name: str
    version: str
    licence: str
    path: str

    @property
    def key(self) -> str:
        """Its name as registries compare names."""
        return re.sub(r"[-_.]+", "-", self.name).lower()

    @property
    def copyleft(self) -> bool:
        """Whether its metadata name the GPL or AGPL."""
        return _GPL.search(self.licence) is not None


GATHERED = "other-licences.txt"
"""The file of a package's metadata that holds what lay in its folders of licences."""


def gather(libraries: Path) -> None:
    """Put the licences of what packages contain into one file a package.

    They lie in folders of folders, under the longest paths of all, which Windows may refuse to copy.
    """
    for info in sorted(libraries.glob("*.dist-info")):
        root = info / "licenses"
        nested = [path for path in sorted(root.rglob("*")) if path.is_file() and path.parent != root]
        if not nested:
            continue
        texts = []
        for path in nested:
            held = path.read_text("utf-8", "replace").strip()
            texts.append(f"{path.relative_to(root).as_posix()}\n\n{held}\n")
            path.unlink()
        (root / GATHERED).write_text(f"\n{'-' * 80}\n".join(texts), "utf-8")
        for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()


def packages(folder: Path) -> list[Package]:
    """Every package in the portable folder, by name."""
    found = []
    for path in folder.glob("*/*.dist-info/METADATA"):
        told = HeaderParser().parsestr(path.read_text("utf-8"))
        where = path.parent.relative_to(folder).as_posix()
        found.append(Package(str(told["Name"]), str(told["Version"]), _licence(told), where))
    return sorted(found, key=lambda package: package.name.lower())


def _licence(told: Message) -> str:
    """The licence that metadata tell: their expression, their classifiers, or the first line of their text."""
    classifiers = [str(line) for line in told.get_all("Classifier", []) if str(line).startswith(_CLASSIFIER)]
    short = [line.rpartition(" :: ")[2] for line in classifiers]
    text = str(told["License-Expression"] or ", ".join(short) or told["License"] or "").strip()
    return text.splitlines()[0][:100] if text else "see its folder"


def text(found: Sequence[Package], weights: Sequence[tuple[str, str]]) -> str:
    """The contents of LICENCES.txt.

    Args:
        found: the packages.
        weights: name and licence of each model whose files are inside.
    """
    lines = [
        "Tidecast is licensed under the Apache License 2.0. You may use this folder yourself without further steps.",
        "If you pass it on, the terms of everything in it apply. These packages need attention:",
        "",
    ]
    lines += [f"{package.name}: {NOTICES[package.key]}" for package in found if package.key in NOTICES]
    lines += [
        f"{package.name}: Licensed under {package.licence}. It is here because it was asked for with --extra. If you "
        "pass this folder on, that licence requires you to offer the source."
        for package in found
        if package.copyleft
    ]
    lines += [f"Weights of {model}: {licence}." for model, licence in weights]
    lines += ["python: Python Software Foundation License, python/LICENSE.txt", "", "Every package:", ""]
    lines += [f"{p.name} {p.version}: {p.licence} ({p.path})" for p in found]
    return "\n".join(lines) + "\n"
