"""Paths that Windows takes in their long form only. That it takes them is tested where these tests run on Windows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.config import SHORT_PATH, extended, long_folder

DEEP = "\\" + "\\".join(["a folder with a long name"] * 9)


@pytest.mark.parametrize(
    "path, wanted",
    [
        ("C:\\Users\\é\\AppData\\Local\\tidecast", ""),
        (f"C:{DEEP}", f"\\\\?\\C:{DEEP}"),
        (f"C:{DEEP}".replace("\\", "/"), f"\\\\?\\C:{DEEP}"),
        (f"\\\\server\\profiles{DEEP}", f"\\\\?\\UNC\\server\\profiles{DEEP}"),
        (f"\\\\?\\C:{DEEP}", ""),
    ],
)
def test_a_deep_folder_of_windows_is_named_in_the_long_form(path: str, wanted: str) -> None:
    assert extended(path) == wanted


def test_other_systems_and_shallow_folders_keep_their_names(tmp_path: Path) -> None:
    assert long_folder(tmp_path / DEEP, "linux") == tmp_path / DEEP
    assert long_folder(Path("x"), "win32") == Path("x") or len(str(Path("x").absolute())) > 100


@pytest.mark.skipif(sys.platform != "win32", reason="about Windows")
def test_snapshots_weights_and_locks_work_below_a_deep_folder(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from bridge.control.files import locked, write_atomically

    folder = long_folder(tmp_path / DEEP.lstrip("\\") / DEEP.lstrip("\\"))
    path = folder / "tidecast" / "snapshots.json"
    with locked(path):
        write_atomically(path, b"{}")
    assert len(str(path)) > SHORT_PATH and path.read_bytes() == b"{}"
    save_file({"x": np.zeros(3)}, folder / "x.safetensors")
    assert load_file(folder / "x.safetensors")["x"].shape == (3,)
