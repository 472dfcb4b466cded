"""Messages between processes: a new one is one dataclass, mypy finds a match that lacks it, garbage is reported."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from bridge.config import EngineProcessConfig
from bridge.ipc.background_channel import BackgroundChannel
from bridge.ipc.channel import Channel, MessageError
from bridge.process import messages
from bridge.process.supervisor import EngineState, Supervisor
from engine.config import Config
from engine.controls import Controls

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Curtain:
    """A message that only this test declares."""

    height: float
    colours: tuple[str, ...] = ()


def draw(connection: Connection) -> None:
    """A process that answers `Curtain`."""
    channel: Channel[Curtain, Curtain] = Channel(connection, (Curtain,))
    got = channel.receive()
    channel.send(Curtain(got.height * 2, (*got.colours, "red")))


def test_a_message_that_a_test_declares_travels_between_two_processes():
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=draw, args=(theirs,))
    process.start()
    theirs.close()
    channel: Channel[Curtain, Curtain] = Channel(ours, (Curtain,))
    channel.send(Curtain(1.5, ("blue",)))
    assert channel.receive() == Curtain(3.0, ("blue", "red"))
    with pytest.raises(EOFError):
        channel.receive()
    process.join()
    channel.close()


@pytest.mark.parametrize(
    "message", [messages.Loading("x"), messages.Health(stages={"dit": 4.0}), messages.Failed("no")]
)
def test_messages_arrive_unchanged(message):
    ours, theirs = SPAWN.Pipe()
    with ours, theirs:
        Channel(theirs, messages.TO_ENGINE).send(message)
        assert Channel(ours, messages.FROM_ENGINE).receive() == message


def test_foreign_and_garbled_messages_are_reported_and_the_next_is_received():
    ours, theirs = SPAWN.Pipe()
    with ours, theirs:
        channel = Channel(ours, messages.FROM_ENGINE)
        theirs.send(("ready", {"model": "ember"}))
        theirs.send_bytes(b"\x80\x05garbage")
        theirs.send(messages.Stop())
        theirs.send(messages.Ready("ember"))
        with pytest.raises(MessageError, match=r"tuple is not a message.*Ready"):
            channel.receive()
        with pytest.raises(MessageError, match="9 bytes between two processes is garbled"):
            channel.receive()
        with pytest.raises(MessageError, match="A Stop is not a message"):
            channel.receive()
        assert channel.receive() == messages.Ready("ember")


def test_the_supervisor_reports_what_it_cannot_read_and_goes_on():
    told: list[messages.EngineEvent] = []
    supervisor = Supervisor(Config(), EngineProcessConfig(), 0.0, Controls, told.append)
    ours, theirs = SPAWN.Pipe()
    channel: BackgroundChannel[messages.ToEngine, messages.FromEngine] = BackgroundChannel(
        "engine", Channel(ours, messages.FROM_ENGINE), supervisor._handle, supervisor._complain
    )
    try:
        theirs.send("nonsense")
        theirs.send(messages.Ready("ember"))
        channel.start()
    finally:
        theirs.close()
        assert channel.close(60)
        supervisor.stop()
    complaint, ready = told
    assert isinstance(complaint, messages.Complaint) and "str is not a message" in complaint.reason
    assert ready == messages.Ready("ember")


EXTENSION = """
from dataclasses import dataclass
from typing import assert_never
from bridge.process.messages import ControlsChanged, InjectFault, Stop, ToEngine

@dataclass(frozen=True)
class Curtain:
    height: float

def obey(message: ToEngine | Curtain) -> float:
    match message:
        case ControlsChanged() | InjectFault() | Stop():
            return 0.0
{case}        case _:
            assert_never(message)
"""


def test_mypy_refuses_a_match_that_leaves_a_message_out(tmp_path: Path):
    lacking, whole = tmp_path / "lacking.py", tmp_path / "whole.py"
    lacking.write_text(EXTENSION.format(case=""))
    whole.write_text(EXTENSION.format(case="        case Curtain(height):\n            return height\n"))
    checked = (messages.__file__, str(lacking), str(whole))  # what they import is not followed: that would be all of it
    options = ("--strict", "--follow-imports=skip", "--cache-dir", str(tmp_path / "cache"))
    command = [sys.executable, "-m", "mypy", *options, *checked]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "lacking.py" in said and '"Curtain"' in said
    assert "Found 1 error in 1 file (checked 3 source files)" in said


def test_the_identity_session_is_served_by_the_same_loop_without_torch(tmp_path: Path):
    program = """
import sys, numpy as np
from bridge.ipc.frame_ring import FrameRing
from bridge.process.heartbeat import Heartbeat
from bridge.process.messages import Ready, Start
from bridge.process import worker
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame

class Parent:
    controls, told, taken = Controls(), [], 0
    def tell(self, message):
        self.told.append(message)
    def take_fault(self):
        return None
    @property
    def stopped(self):
        return heartbeat.finished == 5

heartbeat = Heartbeat()
with FrameRing(32, 16, depth=8) as there, FrameRing(32, 16, depth=8) as back:
    start, parent = Start(Config(), True, False, 0.0, Controls()), Parent()
    writer, reader = there.writer(), back.reader()
    for number in range(5):
        writer.put(Frame(np.full((16, 32, 3), number, np.uint8), captured_ns=number, seq=number))
    with worker.open_session(start, parent, heartbeat) as session:
        worker.Loop(start, session, there.reader(), back.writer(), parent, heartbeat).serve()
    got = [reader.get() for _ in range(5)]
    print([frame.seq for frame in got if frame], all((f.pixels == f.seq).all() for f in got if f))
print(session.spec.name, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines() == ["[0, 1, 2, 3, 4] True", "identity False"], done.stderr


def test_an_identity_engine_starts_and_stops():
    told: list[messages.EngineEvent] = []
    ready = threading.Event()

    def tell(event: messages.EngineEvent) -> None:
        told.append(event)
        if isinstance(event, messages.Ready):
            ready.set()

    process = EngineProcessConfig(kind="identity")
    supervisor = Supervisor(Config(width=64, height=64), process, 0.0, Controls, tell)
    supervisor.start()
    try:
        assert ready.wait(60)
        assert supervisor.state is EngineState.RUNNING
        assert messages.Ready("identity") in told
    finally:
        supervisor.stop()
    assert supervisor.state is EngineState.STOPPED


def test_an_engine_that_cannot_be_started_is_reported_and_tried_again():
    told: list[messages.EngineEvent] = []
    ready = threading.Event()
    failures = iter([OSError("no more processes")])

    def controls() -> Controls:
        for failure in failures:
            raise failure
        return Controls()

    def tell(event: messages.EngineEvent) -> None:
        told.append(event)
        if isinstance(event, messages.Ready):
            ready.set()

    process = EngineProcessConfig(kind="identity", backoff_seconds=0.0)
    supervisor = Supervisor(Config(width=64, height=64), process, 0.0, controls, tell)
    supervisor.start()
    try:
        assert ready.wait(60)
    finally:
        supervisor.stop()
    assert isinstance(told[0], messages.Restarting) and "no more processes" in told[0].reason
    assert supervisor.restarts == 1
