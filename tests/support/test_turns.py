"""Turns of the workers of a test run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import filelock

from tests.support.turns import Turns


def test_what_is_alone_waits_for_the_others_and_keeps_them_waiting(tmp_path: Path) -> None:
    """Three workers; the second wants to be alone while the first runs, and the third comes after it."""
    running: list[str] = []
    order: list[str] = []
    leave = {name: threading.Event() for name in "abc"}

    def work(name: str, alone: bool) -> None:
        with Turns(tmp_path, name).turn(alone):
            running.append(name)
            order.append(name)
            leave[name].wait(10.0)
            running.remove(name)

    def start(name: str, alone: bool) -> threading.Thread:
        thread = threading.Thread(target=work, args=(name, alone))
        thread.start()
        return thread

    with Turns(tmp_path, "c").turn(False):
        pass
    first = start("a", False)
    while order != ["a"]:
        time.sleep(0.01)
    second = start("b", True)
    while not _held(tmp_path / "gate"):
        time.sleep(0.01)
    third = start("c", False)
    time.sleep(0.3)
    assert order == ["a"], "the second waits for the first, and the third for the second"
    leave["a"].set()
    while order != ["a", "b"]:
        time.sleep(0.01)
    time.sleep(0.2)
    assert running == ["b"]
    leave["b"].set()
    leave["c"].set()
    for thread in (first, second, third):
        thread.join(10.0)
    assert order == ["a", "b", "c"] and not running


def _held(path: Path) -> bool:
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except filelock.Timeout:
        return True
