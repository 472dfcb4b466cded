"""A block of memory that several processes map: reserved when it is created, and freed with its last user.

A block has no name that could outlive its processes, however they end. On Linux it is a memfd; on macOS a POSIX shared
memory object whose name is removed as soon as it is created. Other processes get its descriptor as an argument. On
Windows it is a file mapping, which the system frees together with the last handle.

The memory is *reserved*: on Linux, creating shared memory only sets its size, and a later write to a page for which
there is no memory ends the process with SIGBUS, which Python cannot catch. `posix_fallocate` takes all pages at once
and fails with an error instead. Windows does the same when it creates a mapping. On macOS, shared memory has no limit
of its own.

A memfd does not count against the size of /dev/shm, which is 64 MiB in a container unless it is told otherwise. Where
memfds are forbidden (an old kernel, a strict seccomp filter), the block is taken from /dev/shm.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import secrets
import sys
import weakref
from multiprocessing.shared_memory import SharedMemory
from typing import Protocol

from engine.errors import SharedMemoryError

_SHM = "/dev/shm"


class Mapping(Protocol):
    """One process's view of a block."""

    def close(self) -> None:
        """Unmap it.

        Raises:
            BufferError: an array still refers to it.
        """
        ...


if sys.platform == "win32":

    class SharedBlock:
        """A handle of a block. Pass it to another process as an argument; `close` and `copy` as with a socket.

        Args:
            size: bytes.
            name: name of an existing block; a new one is created by default.

        Raises:
            SharedMemoryError: there is not enough memory.
        """

        def __init__(self, size: int, name: str | None = None) -> None:
            self.size = size
            try:
                self._shared = SharedMemory(name, create=name is None, size=size)
            except OSError as error:
                raise _too_little(size, error, "") from None
            self.close = weakref.finalize(self, self._shared.close)

        def __reduce__(self) -> tuple[type[SharedBlock], tuple[int, str]]:
            return SharedBlock, (self.size, self._shared.name)

        def copy(self) -> SharedBlock:
            """Another handle of the same block, which is closed on its own."""
            return SharedBlock(self.size, self._shared.name)

        def map(self) -> tuple[Mapping, memoryview]:
            """Map the block into this process: the mapping, and its bytes."""
            shared = SharedMemory(self._shared.name)
            assert shared.buf is not None
            return shared, shared.buf

else:
    import _posixshmem
    from multiprocessing.reduction import DupFd

    class SharedBlock:
        """A handle of a block. Pass it to another process as an argument; `close` and `copy` as with a socket.

        Args:
            size: bytes.
            descriptor: an open descriptor of an existing block, which this handle owns; a new one by default.

        Attributes:
            close: closes the handle; idempotent. Mappings remain.

        Raises:
            SharedMemoryError: there is not enough memory.
            OSError: this process has too many open files.
        """

        def __init__(self, size: int, descriptor: int | None = None) -> None:
            self.size = size
            self._descriptor = _reserved(size) if descriptor is None else descriptor
            self.close = weakref.finalize(self, os.close, self._descriptor)

        def __reduce__(self) -> tuple[object, ...]:
            return _received, (self.size, DupFd(self._descriptor))

        def copy(self) -> SharedBlock:
            """Another handle of the same block, which is closed on its own."""
            return SharedBlock(self.size, os.dup(self._descriptor))

        def map(self) -> tuple[Mapping, memoryview]:
            """Map the block into this process: the mapping, and its bytes."""
            mapping = mmap.mmap(self._descriptor, self.size)
            return mapping, memoryview(mapping)

    def _received(size: int, passed: object) -> SharedBlock:
        return SharedBlock(size, passed.detach())  # type: ignore[attr-defined]

    def _reserved(size: int) -> int:
        """A descriptor of a new block of which every page is reserved."""
        try:
            descriptor, where = _created()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise _too_little(size, error, _SHM) from None
        try:
            os.ftruncate(descriptor, size)
            if sys.platform == "linux":
                os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            os.close(descriptor)
            raise _too_little(size, error, where) from None
        return descriptor

    def _created() -> tuple[int, str]:
        """A descriptor of a new, empty block, and the folder against whose size it counts ("" for none)."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # forbidden; if it is for want of descriptors, the next call says so
                return _memfd(), ""
        name = f"/tidecast-{os.getpid()}-{secrets.token_hex(4)}"  # at most 31 characters on macOS
        descriptor = _posixshmem.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
        _posixshmem.shm_unlink(name)
        return descriptor, _SHM if sys.platform == "linux" else ""


if sys.platform == "linux":

    def _memfd() -> int:
        """A new memfd; asks the C library where Python does not offer it, as in builds for old systems (uv's own)."""
        if hasattr(os, "memfd_create"):
            return os.memfd_create("tidecast")
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "memfd_create"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        descriptor: int = library.memfd_create(b"tidecast", 1)  # 1: closed in programs that are started (MFD_CLOEXEC)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return descriptor


def _too_little(size: int, error: OSError, where: str) -> SharedMemoryError:
    """The error for a block that cannot be reserved, in the folder `where` or ("") in general memory."""
    needed = f"{size / 2**20:.0f} MiB of shared memory for frames could not be reserved ({error.strerror})"
    if sys.platform == "win32" or not os.path.isdir(where):
        return SharedMemoryError(f"{needed}.", "End other programs, or choose a smaller size for the pictures.")
    held = os.statvfs(where)
    free, total = held.f_bavail * held.f_frsize, held.f_blocks * held.f_frsize
    enough = 64
    while enough * 2**20 < total - free + 2 * size:
        enough *= 2
    return SharedMemoryError(
        f"{needed}: {free / 2**20:.0f} of {total / 2**20:.0f} MiB are free in {where}.",
        f"Give a container more (docker run --shm-size={enough}m), or else: mount -o remount,size={enough}m {where}.",
    )
