"""The branches for macOS, on this system with a stand-in for what differs. Nothing of it was ever run on a Mac.

Elsewhere: cameras and screens (`video/devices/test_systems.py`), Syphon (`video/test_contract.py`), the search for
TouchDesigner (`td_components/test_install.py`), torch's build (`test_bootstrap.py`), the pins for each system
(`python -m bridge.pins`). mypy checks these branches with `--platform darwin`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.cli import td
from bridge.ipc import shared_block
from bridge.video.ndi import connect
from td_components.install import InstallError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither descriptors nor these libraries")

LONGEST_NAME = 31
"""PSHMNAMLEN of macOS."""


def test_shared_memory_has_a_short_name_that_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    opened = shared_block._posixshmem.shm_open

    def open_and_note(name: str, *given: Any, **named: Any) -> int:
        names.append(name)
        return int(opened(name, *given, **named))

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "getpid", lambda: 99_998)  # the largest that macOS gives
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(shared_block, "_posixshmem", SimpleNamespace(**vars(shared_block._posixshmem)))
    monkeypatch.setattr(shared_block._posixshmem, "shm_open", open_and_note)
    block = shared_block.SharedBlock(70_000)
    mapping, view = block.map()
    view[69_999] = 7
    other, seen = block.copy().map()
    assert seen[69_999] == 7
    assert len(names) == 1 and len(names[0]) <= LONGEST_NAME
    with pytest.raises(FileNotFoundError):
        opened(names[0], os.O_RDWR, mode=0o600)
    view.release(), seen.release()
    mapping.close(), other.close(), block.close()


def test_ndi_is_called_in_the_library_that_the_binding_brings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libndi.dylib").write_text("")
    loaded: list[str] = []

    def load(path: str) -> SimpleNamespace:
        loaded.append(path)
        return SimpleNamespace(NDIlib_recv_connect=SimpleNamespace(), NDIlib_recv_destroy=SimpleNamespace())

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert connect._library(str(tmp_path / "__init__.py")) is not None
    assert loaded == [str(tmp_path / "libndi.dylib")]


def test_without_touchdesigner_its_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("td_components.install.tools", lambda *given: [])
    with pytest.raises(InstallError, match="--touchdesigner"):
        td._newest_tool()
