"""Writes the pins anew: `python -m bridge.pins`, in a checkout with uv (`pip install uv`) and a package index.

uv resolves pyproject.toml once for every system and Python version that Tidecast supports. The result is split into one
file for the libraries that are always there and one for what each extra adds, so that an installation can choose.
At the end a dry run looks for wheels on each system.
The files hold names, versions, markers and SHA-256 hashes, and no address: each machine asks the index it is set up
for, and what that index hands out must have one of these hashes.

Torch is apart, because its GPU builds are other files with other hashes, in an index of its own. `torch.txt` holds the
default builds (CPU on Windows and macOS). `python -m bridge.pins cu130` writes the hashes of a GPU build for Windows to
`torch-cu130.txt`; it needs that index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from bridge.bootstrap import ROOT
from bridge.pins import files

OLDEST_PYTHON = "3.11"
CUDA = ("cuda-", "nvidia-", "triton")
"""How the names of the libraries begin that come only with torch's build for CUDA on Linux."""

SYSTEMS = {
    system: ("--python-platform", platform)
    for system, platform in {
        "Windows": "x86_64-pc-windows-msvc",
        "macOS 14 (Apple silicon)": "aarch64-apple-darwin",
        "macOS 14 (Intel)": "x86_64-apple-darwin",
        "Linux (x86-64)": "x86_64-unknown-linux-gnu",
        "Linux (ARM)": "aarch64-unknown-linux-gnu",
    }.items()
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OLDEST_MACOS = "MACOSX_DEPLOYMENT_TARGET"
"""Environment variable that tells uv for which macOS wheels may be: the libraries' own oldest is 14."""


def compiled(*arguments: str, inputs: str = "") -> dict[str, str]:
    """What uv resolves: each requirement (name, version and marker) with the lines of its hashes, if asked for.

    Args:
        arguments: of `uv pip compile`; `-` among them stands for `inputs`.
        inputs: requirements, one a line.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-header", "--no-annotate", *arguments]
    done = subprocess.run(command, input=inputs, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        text = line.removesuffix(" \\")
        if line.startswith(" "):
            found[list(found)[-1]] += " \\\n" + text
        else:
            found[text] = ""
    return found


def write(path: Path, pins: dict[str, str]) -> None:
    """Write pins as a requirements file."""
    path.write_text("".join(f"{pin}{hashes}\n" for pin, hashes in pins.items()), "utf-8", newline="\n")
    print(f"{path.relative_to(ROOT)}: {len(pins)}")


def main() -> None:
    """Resolve everything and write all files, or only those of the GPU builds of torch that are named."""
    if sys.argv[1:]:
        for build in sys.argv[1:]:
            write(files.torch(build), gpu_build(build))
        return
    write_all()
    for system, options in SYSTEMS.items():
        print(f"{system}: {', '.join(lacking(options)) or 'every library has a wheel'}")


def gpu_build(build: str) -> dict[str, str]:
    """The pin of a GPU build of torch for Windows, from the index of its makers."""
    options = ("--torch-backend", build, *files.WINDOWS, "--no-deps", "--generate-hashes", "-")
    return compiled(*options, inputs=files.torch_wanted(build))


def write_all() -> None:
    """Resolve everything together, so that the files fit each other, and write each its share."""
    universal = ("--universal", "--python-version", OLDEST_PYTHON, "--only-binary", ":all:", "-")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    base: list[str] = project["project"]["dependencies"]
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    torch = [files.torch_wanted()]
    alone = {files.BUILD: project["build-system"]["requires"], files.UV: ["uv"], files.torch(): torch}
    asked = {line for group in (base, *extras.values(), *alone.values()) for line in group}
    pins = compiled("--generate-hashes", *universal, inputs="\n".join(sorted(asked)))
    with tempfile.TemporaryDirectory() as scratch:
        versions = Path(scratch) / "versions.txt"
        versions.write_text("\n".join(pins), "utf-8")

        def names(*groups: list[str]) -> set[str]:
            """The names of what groups of requirements need, in the versions found above."""
            lines = [line for group in groups for line in group]
            return {name(pin) for pin in compiled("-c", str(versions), *universal, inputs="\n".join(lines))}

        cuda = {name(pin) for pin in pins if name(pin).startswith(("torch", *CUDA))}
        present = names(base, torch) - cuda
        shares = {path: names(group) for path, group in alone.items()} | {files.BASE: present}
        shares[files.torch()] &= cuda
        for extra, own in extras.items():
            named = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in own}
            shares[files.extra(extra)] = names(base, own, torch) - (cuda - named) - present
    for path, share in shares.items():
        write(path, {pin: hashes for pin, hashes in pins.items() if name(pin) in share})
    write(
        files.PYTHON,
        compiled("--no-deps", "--generate-hashes", *files.WINDOWS, "-", inputs="\n".join(files.WINDOWS_PYTHON)),
    )


def lacking(options: tuple[str, ...]) -> list[str]:
    """The files of pins that cannot be installed on a system without a compiler, for one of the Python versions."""
    found = []
    for path in (files.BASE, files.torch(), *(files.extra(name) for name in files.extras())):
        for python in PYTHONS:
            command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--target", tempfile.gettempdir()]
            command += [*options, "--python-version", python, "--only-binary", ":all:", "--no-deps", "-r", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {OLDEST_MACOS: "14.0"})
            if done.returncode:
                found.append(f"{path.name} does not install with Python {python}")
    return found


def name(pin: str) -> str:
    """The name in a requirement such as `numpy==2.4.6 ; python_full_version < '3.12'`."""
    return pin.partition("==")[0]


if __name__ == "__main__":
    main()
