"""The web process: it passes on what the bridge process sends, and garbled messages do not stop it."""

from __future__ import annotations

import multiprocessing

from bridge.ipc.channel import Channel
from bridge.web import messages
from bridge.web.server.process import listen_to_bridge

SPAWN = multiprocessing.get_context("spawn")


def test_the_web_process_hands_on_news_and_survives_garbage(caplog):
    ours, theirs = SPAWN.Pipe()
    heard: list[messages.News] = []
    with ours, theirs:
        ours.send({"controls": {}})
        ours.send_bytes(b"garbage")
        for message in (messages.SnapshotsStored((3,)), messages.Stop()):
            ours.send(message)
        listen_to_bridge(Channel(theirs, messages.TO_WEB), heard.append)
    assert heard == [messages.SnapshotsStored((3,))]
    assert "dict is not a message" in caplog.text and "garbled" in caplog.text
