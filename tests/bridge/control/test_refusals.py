"""A flood of messages that are not understood leaves a few lines in the log, and says how many there were."""

from __future__ import annotations

import socket

import pytest

from bridge.control.compat.server import CompatServer
from bridge.control.osc.packet import build
from bridge.control.refusals import LINES, PERIOD_S, RefusalLog
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from tests.bridge.control.test_snapshots import eventually


def test_each_address_is_logged_once_and_the_rest_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    refusals = RefusalLog(lambda: now[0])
    for _ in range(500):
        refusals.note("/a", "There is nothing at this address.")
    for number in range(10_000):
        refusals.note(f"/random/{number}", "There is nothing at this address.")
    assert len(caplog.messages) == LINES
    assert caplog.messages[:2] == [
        "/a: There is nothing at this address.",
        "/random/0: There is nothing at this address.",
    ]
    caplog.clear()
    now[0] = PERIOD_S
    refusals.note("/a", "One value is needed.")
    assert caplog.messages == [
        f"Refused after that: /a (499 more), {10_000 - LINES + 1} messages to other addresses.",
        "/a: One value is needed.",
    ]
    caplog.clear()
    now[0] = 2 * PERIOD_S
    refusals.note("/a", "One value is needed.")
    assert caplog.messages == ["/a: One value is needed."]


def test_every_way_in_logs_that_way_and_tells_every_error(caplog: pytest.LogCaptureFixture) -> None:
    """The compatibility modes wrote one line for each message."""
    store, told = ControlStore(TABLE), []
    store.listen_errors(lambda *error: told.append(error))
    for number in range(100):
        assert not store.handle(f"/tidecast/nowhere/{number}", [1])
    with (
        CompatServer(store, Telemetry(TABLE), "streamdiffusiontd", port=0) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for number in range(100):
            client.sendto(build(f"/unheard/of/{number}", (1,)), server.address)
            client.sendto(b"no OSC", server.address)
        eventually(lambda: len(told) == 300)
    assert len(caplog.messages) == LINES
