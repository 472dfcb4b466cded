"""The job object, with a stand-in for Windows' library that checks what it is given."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from bridge.ipc.job_object import Job, _ExtendedLimits

WAIT_S = 60.0


class CreateJobObject:
    restype: Any = ctypes.c_int  # what ctypes takes for granted; a handle has 64 bits

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __call__(self, attributes: None, name: None) -> int:
        assert (attributes, name) == (None, None), "a job that children inherit would outlive its owner"
        assert self.restype is ctypes.c_void_p
        return self._handle


class Kernel32:
    """The three functions as they are documented; `refuses` names one that fails."""

    HANDLE = 0x1_0000_0040

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.CreateJobObjectW = CreateJobObject(0 if refuses == "CreateJobObject" else self.HANDLE)
        self.flags = 0
        self.processes: list[int | None] = []

    def SetInformationJobObject(self, job: ctypes.c_void_p, kind: int, limits: Any, size: ctypes.c_uint32) -> int:
        assert (job.value, kind, size.value) == (self.HANDLE, 9, 144)
        self.flags = ctypes.cast(limits, ctypes.POINTER(_ExtendedLimits)).contents.basic.flags
        return int(self.refuses != "SetInformationJobObject")

    def AssignProcessToJobObject(self, job: ctypes.c_void_p, process: ctypes.c_void_p) -> int:
        assert job.value == self.HANDLE
        self.processes.append(process.value)
        return int(self.refuses != "AssignProcessToJobObject")


def test_processes_are_put_into_a_job_that_ends_them_with_its_last_handle() -> None:
    kernel32 = Kernel32()
    job = Job(kernel32)
    job.add(77)
    assert (kernel32.flags, kernel32.processes) == (0x2000, [77])


@pytest.mark.parametrize("call", ["CreateJobObject", "SetInformationJobObject", "AssignProcessToJobObject"])
def test_a_call_that_fails_is_an_error_with_its_name(call: str) -> None:
    with pytest.raises(OSError, match=call):
        Job(Kernel32(call)).add(77)


OWNER = """
import sys, time, multiprocessing
from bridge.ipc.start_process import start_process
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
    start_process(process)
    print(process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "win32", reason="job objects exist on Windows only")
def test_a_child_that_does_not_look_ends_with_its_parent(tmp_path: Any) -> None:
    program = tmp_path / "owner.py"
    program.write_text(OWNER)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    deadline = time.monotonic() + WAIT_S
    while child.is_running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running()
