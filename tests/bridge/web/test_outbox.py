"""What waits for the web process: merged, told once, and told in full to a new process."""

from __future__ import annotations

from bridge.web import messages
from bridge.web.outbox import Outbox


def test_what_waits_is_merged_and_told_once():
    outbox = Outbox()
    for value in range(1000):
        outbox.control("strength", value, "osc")
        outbox.readings({"fps_out": 30.0})
    outbox.error("web", "slow")
    outbox.state(messages.SnapshotsStored((1, 2)))
    outbox.reply(messages.Reply("web:1", "/a", (1,)))
    controls, readings, errors, stored, reply = outbox.take()
    assert controls == messages.ControlsChanged({"strength": messages.ControlValue(999, "osc")})
    assert readings == messages.ReadingsChanged({"fps_out": 30.0})
    assert isinstance(errors, messages.ErrorsReported)
    assert [(note.topic, note.reason) for note in errors.notes] == [("web", "slow")]
    assert (stored, reply) == (messages.SnapshotsStored((1, 2)), messages.Reply("web:1", "/a", (1,)))
    outbox.readings({"fps_out": 30.0})
    outbox.state(messages.SnapshotsStored((1, 2)))
    assert outbox.take() == []


def test_a_new_web_process_is_told_everything():
    outbox = Outbox()
    outbox.readings({"fps_out": 30.0})
    outbox.error("web", "slow")
    outbox.state(messages.SnapshotsStored((1, 2)))
    before = outbox.take()
    outbox.tell_everything({"mix": 1.0})
    assert outbox.take() == [messages.ControlsChanged({"mix": messages.ControlValue(1.0, "")}), *before]
