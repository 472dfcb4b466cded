"""Targets with a defect each, to test the fuzz itself."""

from __future__ import annotations

import contextlib
import os
import time

from bridge.drills.fuzzing.target import Target


def raises(data: bytes) -> None:
    if data == b"raise":
        raise IndexError("planted")


def burns(data: bytes) -> None:
    end = time.thread_time() + 0.04 * data.startswith(b"burn")
    while time.thread_time() < end:
        pass


def waits(data: bytes) -> None:
    time.sleep(0.04)


def hangs(data: bytes) -> None:
    while data == b"hang":
        pass


def dies(data: bytes) -> None:
    if data == b"die":
        os.abort()


TARGETS = {
    check.__name__: Target(check.__name__, lambda check=check: contextlib.nullcontext(check), (b"rais",), __name__)
    for check in (raises, burns, waits, hangs, dies)
}
