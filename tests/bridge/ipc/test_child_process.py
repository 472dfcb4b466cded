"""How the pipe is passed to a process that is started."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler

import pytest

from bridge.ipc.child_process import PassedConnection


class Starting:
    """What multiprocessing calls a process that is being started: it duplicates handles into that process."""

    def __init__(self) -> None:
        self.duplicated: list[int] = []

    def duplicate_for_child(self, handle: int) -> int:
        self.duplicated.append(handle)
        return 12345


@pytest.fixture
def starting() -> Iterator[Starting]:
    process = Starting()
    set_spawning_popen(process)
    yield process
    set_spawning_popen(None)


def test_the_handle_is_duplicated_into_the_new_process_and_nothing_stays_here(starting: Starting) -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with ours, theirs:
        data = bytes(ForkingPickler.dumps(PassedConnection(theirs)))
        assert starting.duplicated == [theirs.fileno()]
        received = pickle.loads(data)
        assert type(received) is type(theirs)
        assert (received.fileno(), received.readable, received.writable) == (12345, True, True)
        received._handle = None  # the number is made up: nothing to close
