"""A channel whose owner never waits: not for a process that does not read, nor for one that stops inside a message."""

from __future__ import annotations

import multiprocessing
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pytest

from bridge.ipc.background_channel import BackgroundChannel
from bridge.ipc.channel import Channel
from bridge.ipc.child_process import PassedConnection

WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Fader:
    level: int
    filling: bytes = b""


@dataclass(frozen=True, slots=True)
class Button:
    name: str


class Ends:
    """Both ends of a pipe: `channel` on this side, the bare connection `other` on the other."""

    def __init__(self) -> None:
        ours, self.other = multiprocessing.get_context("spawn").Pipe()
        self.handled: list[Any] = []
        self.reported: list[str] = []
        self.arrived = threading.Event()
        self.channel: BackgroundChannel[Fader | Button, Fader | Button] = BackgroundChannel(
            "test", Channel(ours, (Fader, Button)), self.handle, lambda topic, text: self.reported.append(text)
        )
        self.channel.start()

    def handle(self, message: Fader | Button) -> None:
        self.handled.append(message)
        self.arrived.set()
        if message == Button("raise"):
            raise RuntimeError("not handled")


@pytest.fixture
def ends() -> Iterator[Ends]:
    found = Ends()
    yield found
    found.other.close()
    assert found.channel.close(WAIT_S)


def test_posting_never_waits_and_a_late_reader_gets_the_newest_of_each_class(ends: Ends) -> None:
    began = time.monotonic()
    ends.channel.post(Button("go"))
    for level in range(2000):
        ends.channel.post(Fader(level, bytes(1 << 20)))
    ends.channel.post(Button("last"))
    assert time.monotonic() - began < WAIT_S  # 2 GB would never have fitted into the pipe
    got = [ends.other.recv()]
    while got[-1] != Button("last"):
        got.append(ends.other.recv())
    faders = [message.level for message in got if isinstance(message, Fader)]
    assert faders == sorted(faders) and faders[-1] == 1999
    assert len(got) < 2000


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe of Windows passes whole messages")
def test_half_a_message_holds_up_nobody(ends: Ends) -> None:
    os.write(ends.other.fileno(), struct.pack("!i", 1000) + b"half")
    ends.channel.post(Fader(1))
    assert ends.other.recv() == Fader(1)
    ends.other.close()
    assert ends.channel.ended.wait(WAIT_S)
    assert ends.handled == []


def test_what_was_sent_before_the_end_is_handled(ends: Ends) -> None:
    for level in range(100):
        ends.other.send(Fader(level))
    ends.other.close()
    assert ends.channel.ended.wait(WAIT_S)
    assert [message.level for message in ends.handled] == list(range(100))


def test_garbage_and_a_handler_that_raises_are_reported_and_the_next_is_handled(ends: Ends) -> None:
    ends.other.send("nonsense")
    ends.other.send(Button("raise"))
    ends.other.send(Button("next"))
    ends.other.close()
    assert ends.channel.ended.wait(WAIT_S)
    assert ends.handled == [Button("raise"), Button("next")]
    assert "str is not a message" in ends.reported[0]
    assert ends.reported[1:] == ["RuntimeError: not handled"]


def test_a_message_that_cannot_be_sent_is_reported_and_the_next_is_sent(ends: Ends) -> None:
    ends.channel.post(Fader(threading.Lock()))  # type: ignore[arg-type]
    ends.channel.post(Button("next"))
    assert ends.other.recv() == Button("next")
    assert "pickle" in ends.reported[0]


class BrokenPipe:
    """A connection as it is on Windows when the other process is gone."""

    def __init__(self) -> None:
        self.closed = False

    def fail(self, *arguments: Any) -> Any:
        raise BrokenPipeError("[WinError 109] The pipe has been ended")

    poll = recv_bytes = send = fail

    def close(self) -> None:
        self.closed = True


def test_a_broken_pipe_is_the_end_of_the_other_process() -> None:
    connection: Any = BrokenPipe()
    reported: list[str] = []
    channel: BackgroundChannel[Fader, Fader] = BackgroundChannel(
        "test", Channel(connection, (Fader,)), lambda message: None, lambda topic, text: reported.append(text)
    )
    channel.start()
    channel.post(Fader(1))
    assert channel.ended.wait(WAIT_S)
    assert channel.close(WAIT_S) and connection.closed
    assert reported == []


def hold(connection: Connection) -> None:
    """A process that neither reads nor ends."""
    time.sleep(600)


def test_a_process_that_is_still_there_does_not_hold_up_the_end() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(PassedConnection(theirs),), daemon=True)
    process.start()
    theirs.close()
    channel: BackgroundChannel[Fader, Fader] = BackgroundChannel(
        "test", Channel(ours, (Fader,)), lambda message: None, lambda topic, text: None
    )
    channel.start()
    channel.post(Fader(1, bytes(1 << 24)))
    assert not channel.close(0.1)
    process.kill()
    process.join()
    assert channel.close(WAIT_S)
