"""Shared memory: reserved at once, independent of the size of /dev/shm, and an error that helps when there is none."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.ipc.frame_ring import FrameRing
from bridge.ipc.shared_block import SharedBlock
from engine.errors import SharedMemoryError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about memory on Linux")

IN_64_MIB = """
import os, subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm"], check=True)
import numpy as np
from bridge.ipc.frame_ring import FrameRing
from engine.errors import SharedMemoryError
from engine.frame import Frame
{setup}
rings = []
try:
    for width, height, depth in ((1280, 720, 12), (1280, 720, 12), (1920, 1080, 30)):  # engine, engine, recorder
        rings.append(FrameRing(width, height, depth))
except SharedMemoryError as error:
    print(error)
for ring in rings:
    writer, (width, height) = ring.writer(), ring.size
    for _ in range(40):  # more than the ring has slots: every page is written
        writer.put(Frame(np.ones((height, width, 3), np.uint8)))
print(len(rings), "rings written")
"""


FORBIDDEN = """
def forbidden(name):
    raise PermissionError(1, "Operation not permitted")
os.memfd_create = forbidden
"""


def in_64_mib(setup: str = "") -> list[str]:
    """Output of a program that fills the rings of a show at 1280x720 where /dev/shm has the size of a container's."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("may not mount here")
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", IN_64_MIB.format(setup=setup)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    return done.stdout.splitlines()


def test_a_container_of_64_mib_holds_the_rings_of_a_show_at_720p() -> None:
    assert in_64_mib() == ["3 rings written"]


def test_a_python_without_memfds_asks_the_c_library() -> None:
    assert in_64_mib("del os.memfd_create") == ["3 rings written"]


def test_without_memfds_a_full_dev_shm_is_an_error_that_says_how_much_to_give() -> None:
    message, rest = in_64_mib(FORBIDDEN)
    assert message.startswith("37 MiB of shared memory for frames could not be reserved (No space left on device)")
    assert "27 of 64 MiB are free in /dev/shm. Give a container more (docker run --shm-size=128m)" in message
    assert rest == "1 rings written"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_memory_that_is_not_there_is_said_and_nothing_is_left_open(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = descriptors()
    with pytest.raises(SharedMemoryError, match=r"could not be reserved.*smaller size"):
        FrameRing(64, 48)
    assert descriptors() == before


def test_where_memfds_are_forbidden_memory_comes_from_dev_shm_and_has_no_name_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forbidden(name: str) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    block = SharedBlock(4096)
    mapping, pages = block.map()
    (line,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/tidecast" in line]
    assert line.endswith("(deleted)")
    pages.release()
    mapping.close()
    block.close()


def test_a_copy_of_a_handle_is_closed_on_its_own() -> None:
    first = SharedBlock(8192)
    second = first.copy()
    first.close()
    first.close()
    mapping, pages = second.map()
    pages[:2] = b"ok"
    pages.release()
    mapping.close()
    second.close()
