"""Who may choose which input."""

import sys

import pytest

from bridge.control.origin import INTERNAL, Origin, Trust, trust_of
from bridge.control.store import ControlStore
from bridge.pipeline.input_policy import InputPolicy
from bridge.table import TABLE
from bridge.video.base import SourceInfo
from engine.control import PREFIX
from engine.errors import ConfigError, ControlError

HERE = Origin("osc:127.0.0.1:5000", Trust.MACHINE)
THERE = Origin("osc:10.0.0.7:5000", Trust.NETWORK)
LISTED = [SourceInfo("ndi:DESK (Cam)", "Cam"), SourceInfo("camera:Webcam", "Webcam")]

ELSEWHERE = [r"file:\\host\share\x.mp4", "file://host/share/x.mp4", r"file:/\host\x", r"file:\/host\x", "screen:host:0"]
ELSEWHERE += ["screen:10.0.0.9:1.0", r"FILE: \\host\x", r"file:\\?\UNC\host\share\x"]
ON_DISK = ["file:/etc/hostname", "file:~/x.mp4", "camera:", "camera:0", "screen:", "screen::0"]


def policy(*allow):
    return InputPolicy(allow, lambda: LISTED)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays with hosts are X11's")
@pytest.mark.parametrize("uri", ELSEWHERE)
def test_only_the_operator_names_other_machines(uri):
    for origin in (HERE, THERE):
        with pytest.raises(ControlError, match="only the command line"):
            policy("file:/", "screen:*")(uri, origin)
    assert policy()(uri, INTERNAL) == uri


@pytest.mark.parametrize("uri", ON_DISK)
def test_cameras_screens_and_files_are_for_this_machine_unless_they_are_listed(uri):
    assert policy()(uri, HERE) == uri
    with pytest.raises(ControlError, match=r"other machines may not choose.*allow"):
        policy()(uri, THERE)


@pytest.mark.parametrize("uri", ["ndi:CAM", "ndi:*", "pattern:bars", "null:", "spout:Resolume", ""])
def test_sources_that_everybody_is_offered_may_be_chosen_from_everywhere(uri):
    assert policy()(uri, THERE) == uri


def test_the_list_of_the_configuration_opens_a_folder_but_nothing_outside():
    allowed = policy("file:/shows/tonight", "camera:0", "screen::*")
    assert allowed("file:/shows/tonight/a.mp4", THERE).endswith("a.mp4")
    assert ".." not in allowed("file:/shows/tonight/x/../a.mp4", THERE)
    assert allowed("camera:0", THERE) == "camera:0"
    assert allowed("screen::0", THERE) == "screen::0"
    for outside in ("file:/shows/tonight/../../etc/passwd", "file:/shows/tonight2/a.mp4", "camera:1", "file:a.mp4"):
        with pytest.raises(ControlError):
            allowed(outside, THERE)
    with pytest.raises(ConfigError, match="teapot"):
        policy("teapot:0")


@pytest.mark.parametrize("who", [INTERNAL, HERE, THERE], ids=lambda who: who.trust.name)
def test_a_number_becomes_the_source_that_it_stands_for_now(who):
    assert policy()("0", who) == "ndi:DESK (Cam)"
    assert policy()("1", who) == policy()("camera:Webcam", who) == "camera:Webcam"
    for number in ("2", "9" * 5000):
        with pytest.raises(ControlError, match=r"There is no input number .*the list has 2"):
            policy()(number, who)


def test_the_store_asks_the_rule_before_every_way_of_setting():
    store, answers = ControlStore(TABLE), []
    lift = store.restrict("input", policy())
    assert not store.handle(PREFIX + "/input", ["camera:9"], THERE, lambda *answer: answers.append(answer))
    assert not store.handle(PREFIX + "/inpu?", ["camera:9"], THERE)
    with pytest.raises(ControlError):
        store.set_many({"mix": 0.5, "input": "file:/x"}, THERE)
    assert store.snapshot.value("input") == "" and store.snapshot.value("mix") == 1.0
    assert "may not choose" in answers[0][1][1]
    assert store.set("input", "0", THERE) == store.snapshot.value("input") == "ndi:DESK (Cam)"
    with pytest.raises(ValueError, match="already"):
        store.restrict("input", policy())
    lift()
    assert store.set("input", "camera:0", THERE) == "camera:0"


@pytest.mark.parametrize(
    ("host", "trust"),
    [
        ("127.0.0.1", Trust.MACHINE),
        ("127.9.9.9", Trust.MACHINE),
        ("::1", Trust.MACHINE),
        ("::ffff:127.0.0.1", Trust.MACHINE),
        ("192.168.1.7", Trust.NETWORK),
        ("::ffff:10.0.0.1", Trust.NETWORK),
        ("fe80::1%eth0", Trust.NETWORK),
        ("localhost.evil.example", Trust.NETWORK),
        ("", Trust.NETWORK),
    ],
)
def test_loopback_is_this_machine(host, trust):
    assert trust_of(host) is trust
