"""What the hub tells pages: every message of the bridge process, in the documented shape."""

from __future__ import annotations

import asyncio
import json
from typing import Any, get_args

import pytest

from bridge.control.origin import Trust
from bridge.control.tempo.state import Pending
from bridge.table import TABLE
from bridge.video.base import SourceInfo
from bridge.web import messages
from bridge.web.server.hub import Hub
from bridge.web.server.page_messages import Joined, PageNews, Point, news_json, state_json
from engine.models.vocabulary import Vocabulary

NEWS: list[tuple[messages.News, dict[str, Any]]] = [
    (messages.ControlsChanged({"mix": messages.ControlValue(0.5, "osc")}), {"controls": {"mix": [0.5, "osc"]}}),
    (messages.ReadingsChanged({"fps_out": 30.0, "latency": float("nan")}), {"readings": {"fps_out": 30.0}}),
    (
        messages.ErrorsReported((messages.ErrorNote(1.0, "web", "slow"),)),
        {"errors": [{"time_s": 1.0, "topic": "web", "reason": "slow"}]},
    ),
    (
        messages.InputsFound((SourceInfo("pattern:bars", "Bars", 320, 192, 30.0),)),
        {"inputs": [{"uri": "pattern:bars", "title": "Bars", "width": 320, "height": 192, "fps": 30.0}]},
    ),
    (
        messages.SnapshotsStored((1, 4), {4: "Intro"}, {1: "red"}, {4: b"jpeg"}),
        {
            "snapshots": [1, 4],
            "snapshot_names": {"4": "Intro"},
            "snapshot_colors": {"1": "red"},
            "snapshot_pictures": {"4": "41e5787e9f28562d"},
        },
    ),
    (
        messages.MidiState("", {"/tidecast/mix": "CC 7"}, ("Desk",)),
        {"midi": {"learning": "", "bindings": {"/tidecast/mix": "CC 7"}, "ports": ["Desk"]}},
    ),
    (
        messages.ChangesPending((Pending("prompt_1", "fire", 64.0),)),
        {"pending": [{"what": "prompt_1", "value": "fire", "beat": 64.0}]},
    ),
    (
        messages.CuesTold((messages.CueRow("Intro", "snapshot 3", 3, "2 s", "4 bars", ""),), True),
        {
            "cues": {
                "rows": [
                    {
                        "name": "Intro",
                        "words": "snapshot 3",
                        "snapshot": 3,
                        "glide": "2 s",
                        "wait": "4 bars",
                        "loop": "",
                    }
                ],
                "loop": True,
            }
        },
    ),
    (
        messages.WordsKnown(Vocabulary(("fire", "ice"), {"lava": "fire"})),
        {"words": {"list": [["fire", ["lava"]], ["ice", []]], "pictures": None}},
    ),
    (messages.Reply("web:1", "/error", ("no",)), {"replies": [{"address": "/error", "args": ["no"]}]}),
]


def test_every_message_has_a_page_that_hears_it():
    assert {type(message) for message, _ in NEWS} == set(get_args(messages.News))


async def _news(message: messages.News) -> Any:
    hub = Hub(TABLE, {}, lambda *_: None, lambda: None)
    client = hub.join(Trust.MACHINE)
    await client.news()
    hub.absorb(message)
    return json.loads(json.dumps(news_json(await client.news())))


@pytest.mark.parametrize("at", range(len(NEWS)))
def test_the_shape_on_the_socket_is_the_documented_one(at: int):
    message, expected = NEWS[at]
    assert asyncio.run(_news(message)) == expected


def test_a_page_first_gets_the_whole_state_and_slow_pages_get_merged_changes():
    async def slow() -> list[list[PageNews]]:
        hub = Hub(TABLE, {}, lambda *_: None, lambda: None)
        for message, _ in NEWS:
            hub.absorb(message)
        client = hub.join(Trust.MACHINE)
        first = await client.news()
        for at in range(100):
            hub.absorb(messages.ControlsChanged({"mix": messages.ControlValue(at / 100, "osc")}))
            hub.absorb(messages.ReadingsChanged({"latency": float(at)}))
            hub.absorb(messages.ErrorsReported((messages.ErrorNote(float(at), "web", "slow"),)))
            hub.absorb(messages.Reply(client.name, "/pong", (at,)))
        return [first, await client.news()]

    first, second = asyncio.run(slow())
    (joined,) = first
    assert isinstance(joined, Joined)
    assert joined.state.controls["mix"] == 0.5
    assert joined.state.errors == (messages.ErrorNote(1.0, "web", "slow"),)
    assert news_json(first) == {"you": "web:1", "local": True, **state_json(joined.state)}
    assert [type(message) for message in second].count(messages.ControlsChanged) == 1
    content = news_json(second)
    assert content["controls"] == {"mix": [0.99, "osc"]} and content["readings"] == {"latency": 99.0}
    assert [error["time_s"] for error in content["errors"]] == list(range(60, 100))
    assert [reply["args"] for reply in content["replies"]] == [[at] for at in range(60, 100)]


def test_a_batch_that_begins_with_the_whole_state_ends_with_the_newest_values():
    hub = Hub(TABLE, {}, lambda *_: None, lambda: None)
    content = news_json(
        [
            Joined("web:1", hub.everything(), False),
            messages.ControlsChanged({"mix": messages.ControlValue(0.25, "osc")}),
            messages.ErrorsReported((messages.ErrorNote(1.0, "web", "slow"),)),
            Point(50.0, 60.0, 30.0, 20.0),
        ]
    )
    assert content["controls"].keys() == hub.controls.keys() and content["controls"]["mix"] == [0.25, "osc"]
    assert content["errors"] == [{"time_s": 1.0, "topic": "web", "reason": "slow"}]
    assert content["history"] == [] and content["point"] == [50.0, 60.0, 30.0, 20.0]
