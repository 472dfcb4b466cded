"""OSCQuery: the tree against the table, over real HTTP, WebSocket and mDNS on loopback."""

import json
import time
import urllib.error
import urllib.request
import uuid

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from zeroconf import IPVersion, ServiceBrowser, Zeroconf

from bridge.control.osc.packet import build, parse
from bridge.control.oscquery import http
from bridge.control.oscquery.announce import Announcement
from bridge.control.oscquery.http import OscQueryServer
from bridge.control.oscquery.tree import find, tree
from bridge.control.store import MAX_DATAGRAM_COST, MIN_PATTERN_COST, ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from engine.control import PREFIX
from engine.errors import PortInUseError
from tests.support.browser import wait

BUNDLE = b"#bundle\0" + bytes(8)


@pytest.fixture
def stage():
    store, telemetry = ControlStore(TABLE), Telemetry(TABLE)
    with OscQueryServer(store, telemetry, ("127.0.0.1", 9000), port=0) as server:
        yield store, telemetry, server


def get(server, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=60) as answer:
        return json.load(answer) if answer.status == 200 else answer.status


def status(server, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, path)
    return caught.value.code


def leaves(node):
    if "TYPE" in node:
        yield node
    for child in node.get("CONTENTS", {}).values():
        yield from leaves(child)


def test_every_address_is_described_and_nothing_else():
    root = tree(TABLE, ControlStore(TABLE).values(), {})
    described = {node["FULL_PATH"]: node for node in leaves(root)}
    assert set(described) == set(TABLE.targets) | {PREFIX + r.address for r in TABLE.readings}
    for path, node in described.items():
        assert find(root, path) is node
        assert node["DESCRIPTION"].endswith(".")
        assert len(node.get("VALUE", [])) in (0, len(node["TYPE"]))
        assert node["ACCESS"] in (1, 2, 3)
    for control in TABLE.controls:
        node = described[PREFIX + control.address]
        if control.numeric:
            assert node["RANGE"] == [{"MIN": control.low, "MAX": control.high}]
            assert node["CLIPMODE"] == ["both"]


def test_a_node_that_is_a_control_and_a_container_is_both():
    node = find(tree(TABLE, ControlStore(TABLE).values(), {}), PREFIX + "/prompt/1")
    assert node["TYPE"] == "s"
    assert node["CONTENTS"]["weight"]["VALUE"] == [1.0]
    assert find(tree(TABLE, ControlStore(TABLE).values(), {}), PREFIX + "/prompt")["ACCESS"] == 2


def test_http_answers_nodes_values_and_host_info(stage):
    store, telemetry, server = stage
    store.set_many({"strength": 0.25, "fit": "contain", "bypass": True})
    telemetry.update(fps_in=25.0)
    root = get(server, "/")
    assert root["FULL_PATH"] == "/"
    assert find(root, PREFIX + "/strength")["VALUE"] == [0.25]
    assert get(server, PREFIX + "/strength?VALUE") == {"VALUE": [0.25]}
    assert get(server, PREFIX + "/fit?RANGE") == {"RANGE": [{"VALS": ["cover", "contain", "stretch"]}]}
    assert get(server, PREFIX + "/bypass")["TYPE"] == "T"
    assert get(server, PREFIX + "/slo/latency?UNIT") == {"UNIT": ["time.millisecond"]}
    assert get(server, PREFIX + "/status/fps/in?VALUE") == {"VALUE": [25.0]}
    info = get(server, "/?HOST_INFO")
    assert (info["NAME"], info["OSC_PORT"], info["OSC_TRANSPORT"]) == ("Tidecast", 9000, "UDP")
    assert info["EXTENSIONS"]["LISTEN"] is True
    assert get(server, PREFIX + "/reset?VALUE") == 204
    assert status(server, "/nowhere") == 404
    assert status(server, PREFIX + "/strength?COLOUR") == 400


def test_a_listener_is_told_every_change_and_can_send(stage):
    store, _, server = stage
    with connect(f"ws://127.0.0.1:{server.port}/") as client:
        client.send(json.dumps({"COMMAND": "LISTEN", "DATA": PREFIX + "/mix"}))
        client.send(json.dumps({"COMMAND": "LISTEN", "DATA": PREFIX + "/mix/midi"}))
        first = {parse(client.recv(5))[0] for _ in range(2)}
        assert first == {(PREFIX + "/mix", (1.0,)), (PREFIX + "/mix/midi", (127,))}
        client.send(build(PREFIX + "/mix", (0.0,)))
        second = {parse(client.recv(5))[0] for _ in range(2)}
        assert second == {(PREFIX + "/mix", (0.0,)), (PREFIX + "/mix/midi", (0,))}
        assert store.snapshot.value("mix") == 0.0
        client.send(json.dumps({"COMMAND": "IGNORE", "DATA": PREFIX + "/mix/midi"}))
        client.send("{not json")
        client.send(b"not OSC")
        client.send(json.dumps({"COMMAND": "LISTEN", "DATA": 3}))
        time.sleep(0.2)
        store.set("mix", 0.5)
        assert parse(client.recv(5)) == [(PREFIX + "/mix", (0.5,))]
        with pytest.raises(TimeoutError):
            client.recv(0.3)


def test_what_one_bundle_may_cost_is_bounded_and_malformed_packets_are_logged_once(stage, caplog):
    store, _, server = stage
    refused = []
    store.listen_errors(lambda address, why: refused.append(why))
    changed = []
    store.listen(lambda name, value, origin: changed.append(name))
    with connect(f"ws://127.0.0.1:{server.port}/") as client:
        for _ in range(50):
            client.send(b"not OSC")
        messages = [build(PREFIX + "/{mix,strength}", (number / 256,)) for number in range(256)]
        client.send(BUNDLE + b"".join(len(message).to_bytes(4, "big") + message for message in messages))
        client.send(build(PREFIX + "/mix", (0.125,)))
        wait(lambda: store.snapshot.value("mix") == 0.125, "the last message")
    assert sum("at once" in why for why in refused) == 1
    assert len(changed) == 2 * MAX_DATAGRAM_COST // MIN_PATTERN_COST + 1
    assert len([line for line in caplog.messages if line.startswith("oscquery")]) == 1


def test_a_tree_is_built_only_when_something_has_changed(monkeypatch):
    built = []

    def count(*args):
        built.append(args)
        return tree(*args)

    monkeypatch.setattr(http, "tree", count)
    store = ControlStore(TABLE)
    endpoints = http._Endpoints(TABLE, store.values, Telemetry(TABLE), {}, lambda *_: None)
    for _ in range(10):
        endpoints.tree()
    assert len(built) == 1
    store.set("strength", 0.25)
    assert find(endpoints.tree(), "tidecast/strength")["VALUE"] == [0.25] and len(built) == 2
    store.set("strength", 0.5)
    assert find(endpoints.tree(at_most_s=60.0), "tidecast/strength")["VALUE"] == [0.25], "shared by all listeners"


def test_what_one_listener_can_have_remembered_is_bounded():
    paths = set()
    for path in ("/x" * 200, *(f"/tidecast/{number}" for number in range(5000))):
        http._change_paths(json.dumps({"COMMAND": "LISTEN", "DATA": path}), paths)
    for nonsense in ("[" * 60_000, "9" * 5000, "null", "[]", '{"COMMAND": "LISTEN", "DATA": {}}'):
        http._change_paths(nonsense, paths)
    assert len(paths) == http.MAX_PATHS and max(map(len, paths)) <= http.MAX_PATH


def test_a_page_of_another_site_may_not_listen(stage):
    _, _, server = stage
    with pytest.raises(WebSocketException), connect(f"ws://127.0.0.1:{server.port}/", origin="http://evil.example"):
        pass


def test_a_taken_port_is_named(stage):
    _, _, server = stage
    with pytest.raises(PortInUseError, match=str(server.port)):
        OscQueryServer(ControlStore(TABLE), Telemetry(TABLE), ("127.0.0.1", 1), port=server.port).start()


def test_it_starts_and_stops_again_and_again():
    server = OscQueryServer(ControlStore(TABLE), Telemetry(TABLE), ("127.0.0.1", 9000), port=0)
    for _ in range(5):
        server.start()
        assert get(server, "/?HOST_INFO")["NAME"] == "Tidecast"
        server.stop()
        server.stop()


def test_it_is_found_by_mdns_on_loopback():
    name = f"Tidecast test {uuid.uuid4().hex[:8]}"
    found = {}

    class Listener:
        def add_service(self, zeroconf, kind, full):
            if full.startswith(name):
                found[kind] = zeroconf.get_service_info(kind, full)

        update_service = add_service

        def remove_service(self, zeroconf, kind, full):
            if full.startswith(name):
                found.pop(kind, None)

    browser = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    announcement = Announcement(name, ("127.0.0.1", 19001), ("127.0.0.1", 19000))
    try:
        ServiceBrowser(browser, ["_oscjson._tcp.local.", "_osc._udp.local."], Listener())
        announcement.start()
        end = time.monotonic() + 60
        while len(found) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert {k: (i.parsed_addresses(), i.port) for k, i in found.items()} == {
            "_oscjson._tcp.local.": (["127.0.0.1"], 19001),
            "_osc._udp.local.": (["127.0.0.1"], 19000),
        }
        announcement.stop()
        while found and time.monotonic() < end:
            time.sleep(0.05)
        assert not found
    finally:
        announcement.stop()
        browser.close()
