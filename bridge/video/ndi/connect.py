"""Connects and destroys an NDI receiver without blocking the other threads of the program.

ndi-python holds the GIL while it calls `NDIlib_recv_connect`, and that call first tears down the old connection. This
took 465 ms in a measurement in which the sender had been killed, and no thread of the program ran meanwhile, not even
the output's. Here the same functions of the same library are called through ctypes, which releases the GIL.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_NAMES = {"win32": "Processing.NDI.Lib.x64.dll", "darwin": "libndi.dylib"}
_HANDLE = b"RecvInstance"


class _Source(ctypes.Structure):
    """`NDIlib_source_t`."""

    _fields_ = (("name", ctypes.c_char_p), ("url", ctypes.c_char_p))


def connect(ndi: ModuleType, handle: Any, name: str, url: str) -> None:
    """Connect the receiver `handle` to the source of this full name at this address."""
    library = _library(str(ndi.__file__))
    if library is None:
        source = ndi.Source()
        source.ndi_name, source.url_address = name, url
        ndi.recv_connect(handle, source)
        return
    library.NDIlib_recv_connect(_pointer(handle), ctypes.byref(_Source(name.encode(), url.encode())))


def destroy(ndi: ModuleType, handle: Any) -> None:
    """Destroy the receiver `handle`; it must not be used afterwards."""
    library = _library(str(ndi.__file__))
    if library is None:
        ndi.recv_destroy(handle)
        return
    library.NDIlib_recv_destroy(_pointer(handle))


def _pointer(handle: Any) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return get(handle, _HANDLE)


@functools.cache
def _library(module_file: str) -> Any:
    """The library in the binding's folder, which the binding has loaded; None if there is no such file."""
    path = Path(module_file).parent / _NAMES.get(sys.platform, "libndi.so.6")
    if not path.exists():
        return None
    library = ctypes.CDLL(str(path))
    library.NDIlib_recv_connect.restype = library.NDIlib_recv_destroy.restype = None
    library.NDIlib_recv_connect.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Source))
    library.NDIlib_recv_destroy.argtypes = (ctypes.c_void_p,)
    return library
