"""Resolume's OSC output, in the form that its support page documents, drives Tidecast over real UDP."""

from __future__ import annotations

import socket
import time

import pytest

from bridge.control.compat.server import CompatServer
from bridge.control.osc.packet import build
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE

LOG = """
/composition/dashboard/link1 0.25
/composition/dashboard/link2 0.5
/composition/dashboard/link3 0.0
/composition/dashboard/link4 0.1
/composition/dashboard/link7 1.0
/composition/dashboard/link8 1.0
/composition/layers/1/video/opacity 0.25
/composition/layers/2/clips/8/transport/position 0.5
/composition/columns/3/connect 1
/composition/columns/3/connect 0
/composition/columns/4/connect 0
"""


def test_the_dashboard_is_the_desk_and_a_column_recalls_a_look():
    store, recalled, errors = ControlStore(TABLE), [], []
    store.on("snapshot_recall", lambda args, caller: recalled.append(args[0]))
    telemetry = Telemetry(TABLE)
    store.listen_errors(lambda address, reason: errors.append((address, reason)))
    server = CompatServer(store, telemetry, "resolume", port=0)
    with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolume:
        for line in LOG.strip().splitlines():
            address, value = line.split()
            number = float(value) if "." in value else int(value)
            resolume.sendto(build(address, (number,)), server.address)
        limit = time.monotonic() + 60
        while (not recalled or store.snapshot.value("steps") != 4) and time.monotonic() < limit:
            time.sleep(0.01)
        assert recalled == [3] and errors == []
        now = store.snapshot
        assert (now.value("strength"), now.value("mix"), now.value("motion")) == (0.25, 0.5, 0.0)
        assert (now.value("weight_1"), now.value("weight_2"), now.value("weight_4")) == (pytest.approx(0.1), 0.0, 1.0)
        resolume.sendto(build("/composition/dashboard/link1", ("loud",)), server.address)
        limit = time.monotonic() + 60
        while not errors and time.monotonic() < limit:
            time.sleep(0.01)
        assert errors[0][0] == "/composition/dashboard/link1" and store.snapshot.value("strength") == 0.25
