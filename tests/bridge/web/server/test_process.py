"""The web process: it passes on what the bridge process sends, and garbled messages do not stop it."""

from __future__ import annotations

import multiprocessing
import threading

from bridge.control.origin import Origin, Trust
from bridge.ipc.channel import Channel
from bridge.table import TABLE
from bridge.web import messages
from bridge.web.server.process import MAX_UNSENT, Uplink, listen_to_bridge
from tests.support.browser import wait

SPAWN = multiprocessing.get_context("spawn")


def test_the_web_process_hands_on_news_and_survives_garbage(caplog):
    ours, theirs = SPAWN.Pipe()
    heard: list[messages.News] = []
    with ours, theirs:
        ours.send({"controls": {}})
        ours.send_bytes(b"garbage")
        answer = messages.ShowAnswer(1, b"{}")
        for message in (messages.Batch((messages.SnapshotsStored((3,)), answer)), messages.Stop()):
            ours.send(message)
        answers: list[messages.ShowAnswer] = []
        listen_to_bridge(Channel(theirs, messages.TO_WEB), heard.append, answers.append)
    assert heard == [messages.SnapshotsStored((3,))] and answers == [answer]
    assert "dict is not a message" in caplog.text and "garbled" in caplog.text


class Pipe:
    """A channel to a bridge process that does not read until it is told to."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.sent: list[messages.FromWeb] = []

    def send(self, message: messages.FromWeb) -> None:
        self.reads.wait()
        self.sent.append(message)


def test_a_client_that_says_too_much_loses_its_own_messages_and_nobody_elses():
    pipe = Pipe()
    uplink = Uplink(pipe, TABLE)  # type: ignore[arg-type]
    flood, page = Origin("web:1", Trust.MACHINE), Origin("web:2", Trust.MACHINE)
    uplink.serving()
    uplink.watch(frozenset({"input"}))
    for number in range(3):
        uplink.say("/tidecast/snapshot/save", (number,), page)
    for number in range(5000):
        uplink.say("/tidecast/snapshot/save", (number,), flood)
        uplink.say("/tidecast/strength", (number / 5000,), flood)
    uplink.alive()
    pipe.reads.set()
    wait(lambda: messages.Alive() in pipe.sent, "all of it")
    said = [message for message in pipe.sent if isinstance(message, messages.Say)]
    assert [message.args for message in said if message.origin == page] == [(0,), (1,), (2,)]
    saved = [message.args[0] for message in said if message.origin == flood and message.address.endswith("save")]
    assert saved[-1] == 4999 and len(saved) <= MAX_UNSENT + 64
    assert messages.Serving() in pipe.sent and messages.Watch(frozenset({"input"})) in pipe.sent
    assert said[-1].args == (4999 / 5000,)
