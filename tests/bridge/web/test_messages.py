"""Messages between the bridge process, the web process and a page: typed, merged, and garbage is said."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.ipc.channel import Channel
from bridge.table import TABLE
from bridge.video.base import SourceInfo
from bridge.web import messages
from bridge.web.outbox import Outbox
from bridge.web.server.hub import Hub
from bridge.web.server.page_messages import PageAsks, PageDrew, PageSays, PageWatches, parse_control, parse_preview
from bridge.web.server.process import listen_to_bridge
from engine.errors import ControlError

SPAWN = multiprocessing.get_context("spawn")


def test_what_waits_is_merged_and_told_once():
    outbox = Outbox()
    for value in range(1000):
        outbox.control("strength", value, "osc")
        outbox.readings({"fps_out": 30.0})
    outbox.error("web", "slow")
    outbox.whole(messages.SnapshotsStored((1, 2)))
    outbox.reply(messages.Reply("web:1", "/a", (1,)))
    controls, readings, errors, stored, reply = outbox.take()
    assert controls == messages.ControlsChanged({"strength": messages.ControlValue(999, "osc")})
    assert readings == messages.ReadingsChanged({"fps_out": 30.0})
    assert isinstance(errors, messages.ErrorsReported) and errors.notes[0][1:] == ("web", "slow")
    assert (stored, reply) == (messages.SnapshotsStored((1, 2)), messages.Reply("web:1", "/a", (1,)))
    outbox.readings({"fps_out": 30.0})
    outbox.whole(messages.SnapshotsStored((1, 2)))
    assert outbox.take() == []


def test_a_new_web_process_is_told_everything():
    outbox = Outbox()
    outbox.readings({"fps_out": 30.0})
    outbox.error("web", "slow")
    outbox.whole(messages.SnapshotsStored((1, 2)))
    before = outbox.take()
    outbox.begin_anew({"mix": 1.0})
    assert outbox.take() == [messages.ControlsChanged({"mix": messages.ControlValue(1.0, "")}), *before]


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
    assert "dict is no message" in caplog.text and "garbled" in caplog.text


NEWS: list[tuple[messages.News, dict[str, Any]]] = [
    (messages.ControlsChanged({"mix": messages.ControlValue(0.5, "osc")}), {"controls": {"mix": [0.5, "osc"]}}),
    (messages.ReadingsChanged({"fps_out": 30.0, "latency": float("nan")}), {"readings": {"fps_out": 30.0}}),
    (messages.ErrorsReported((messages.ErrorNote(1.0, "web", "slow"),)), {"errors": [[1.0, "web", "slow"]]}),
    (
        messages.InputsFound((SourceInfo("pattern:bars", "Bars", 320, 192, 30.0),)),
        {"inputs": [{"uri": "pattern:bars", "title": "Bars", "width": 320, "height": 192, "fps": 30.0}]},
    ),
    (messages.SnapshotsStored((1, 4)), {"snapshots": [1, 4]}),
    (
        messages.MidiState("", {"/tidecast/mix": "CC 7"}, ("Desk",)),
        {"midi": {"learning": "", "bindings": {"/tidecast/mix": "CC 7"}, "ports": ["Desk"]}},
    ),
    (messages.Reply("web:1", "/error", ("no",)), {"replies": [["/error", ["no"]]]}),
]


def test_every_message_has_a_page_that_hears_it():
    assert {type(message) for message, _ in NEWS} == set(messages.TO_WEB) - {messages.Stop}


async def _news(message: messages.News) -> Any:
    hub = Hub(TABLE, {}, lambda *_: None, lambda: None)
    client = hub.join()
    await client.news()
    hub.absorb(message)
    return json.loads(json.dumps(await client.news()))


@pytest.mark.parametrize("at", range(len(NEWS)))
def test_the_shape_on_the_socket_is_the_documented_one(at: int):
    message, expected = NEWS[at]
    assert asyncio.run(_news(message)) == expected


def test_messages_of_a_page_are_parsed_or_refused():
    assert parse_control({"address": "/tidecast/mix", "args": [0.5]}) == PageSays("/tidecast/mix", (0.5,))
    assert parse_control({"ask": "inputs"}) == PageAsks()
    assert parse_preview({"watch": ["output"]}) == PageWatches(("output",))
    assert parse_preview("drawn") == PageDrew()
    for garbage in (None, 1, [], {"address": 1}, {"address": "/x", "args": [None]}, {"address": "/x", "args": [1] * 9}):
        with pytest.raises(ControlError, match="not understood"):
            parse_control(garbage)
        with pytest.raises(ControlError, match="not understood"):
            parse_preview(garbage)


EXTENSION = """
from dataclasses import dataclass
from typing import assert_never
from bridge.web.messages import FindInputs, FromWeb, Say, Serving, Watch

@dataclass(frozen=True)
class Applause:
    seconds: float

def obey(message: FromWeb | Applause) -> None:
    match message:
        case FindInputs() | Say() | Serving() | Watch():
            pass
        case _:
            assert_never(message)
"""


def test_mypy_refuses_a_match_that_leaves_a_message_out(tmp_path: Path):
    path = tmp_path / "extension.py"
    path.write_text(EXTENSION)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(path)]
    assert '"Applause"' in subprocess.run(command, capture_output=True, text=True, check=False).stdout
