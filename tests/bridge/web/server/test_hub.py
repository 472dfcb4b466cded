"""What the hub tells pages: every message of the bridge process, in the documented shape."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bridge.table import TABLE
from bridge.video.base import SourceInfo
from bridge.web import messages
from bridge.web.server.hub import Hub

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
