"""MIDI: bindings, learning, soft takeover and ports that come and go, over mido ports that need no hardware."""

import threading
import time

import mido
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mido import Message

from bridge.control import files
from bridge.control.midi.backend import MidiError, open_backend
from bridge.control.midi.bindings import (
    DEFAULT,
    Binding,
    BindingsError,
    Knob,
    Takeover,
    learned,
    load,
    resolve,
    save,
    stable_name,
)
from bridge.control.midi.input import MidiInput
from bridge.control.origin import INTERNAL, Origin, Trust
from bridge.control.snapshots import Snapshots
from bridge.control.store import Caller, ControlStore
from bridge.table import TABLE
from engine.control import PREFIX, Kind
from engine.errors import ControlError
from tests.fakes import midi_loopback as cables

KNOBS = "nanoKONTROL2"


@pytest.fixture
def stage(tmp_path):
    """A store, its MIDI input, the errors, the file; the device is not plugged in yet."""
    store, errors = ControlStore(TABLE), []
    path = tmp_path / "midi.toml"
    backend = open_backend("tests.fakes.midi_loopback")
    midi = MidiInput(store, path, lambda *e: errors.append(e), backend, look_s=0.05)
    yield store, midi, errors, path
    midi.stop()
    for name in [d["name"] for d in cables.get_devices()]:
        cables.unplug(name)


def eventually(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def plugged(midi, name=KNOBS):
    device = cables.plug(name)
    eventually(lambda: name in midi.ports)
    return device


def test_bindings_that_somebody_else_writes_are_in_use_within_a_second(stage):
    """Another Tidecast has learned a knob, or a show was imported; a damaged file leaves the bindings in use."""
    store, midi, errors, path = stage
    midi.start()
    device = plugged(midi)
    save(path, (Binding(cc=99, address="/tidecast/mix"),))
    eventually(lambda: midi.bindings == (Binding(cc=99, address="/tidecast/mix"),))
    device.send(cc(99, 127))
    device.send(cc(99, 0))
    eventually(lambda: store.snapshot.value("mix") == 0.0)
    path.write_text("[[binding]]\ncc = 200")
    eventually(lambda: errors)
    assert "The bindings in use stay" in errors[0][1]
    assert midi.bindings == (Binding(cc=99, address="/tidecast/mix"),) and not path.exists()
    midi.use((Binding(cc=98, address="/tidecast/strength"),))
    device.send(cc(98, 127))
    device.send(cc(98, 0))
    eventually(lambda: store.snapshot.value("strength") == 0.0)
    assert list(midi.knobs) == ["/tidecast/strength"]


def cc(number, value, channel=0):
    return Message("control_change", channel=channel, control=number, value=value)


def note(number, velocity, kind="note_on"):
    return Message(kind, note=number, velocity=velocity)


def started(midi, path, *bindings):
    save(path, tuple(bindings))
    return midi.start()


def test_a_controller_plugged_in_later_is_found_and_found_again(stage):
    store, midi, _, path = stage
    started(midi, path, Binding(cc=1, address=PREFIX + "/motion"))
    device = plugged(midi)
    device.send(cc(1, 127))
    assert store.snapshot.value("motion") == 1.0
    cables.unplug(KNOBS)
    eventually(lambda: midi.ports == ())
    device = plugged(midi)
    device.send(cc(1, 0))
    device.send(cc(1, 127))
    device.send(cc(1, 0))
    assert store.snapshot.value("motion") == 0.0


def test_without_a_file_common_knobs_are_bound(stage):
    store, midi, errors, path = stage
    midi.start()
    device = plugged(midi)
    for value in (0, 127, 32):
        device.send(cc(1, value))
        device.send(cc(7, value))
    assert store.snapshot.value("strength") == pytest.approx(32 / 127)
    assert store.snapshot.value("mix") == pytest.approx(32 / 127)
    device.send(cc(64, 127))
    assert store.snapshot.value("freeze") is True
    device.send(cc(64, 0))
    assert store.snapshot.value("freeze") is False
    assert not errors
    assert not path.exists()
    assert {b.address for b in DEFAULT} == set(midi.knobs)


def test_a_fresh_knob_does_not_jump_but_catches_the_value(stage):
    store, midi, _, path = stage
    started(midi, path, Binding(cc=1, address=PREFIX + "/strength"))
    device = plugged(midi)
    store.set("strength", 0.5)
    device.send(cc(1, 10))
    device.send(cc(1, 20))
    assert store.snapshot.value("strength") == 0.5
    device.send(cc(1, 100))  # passes 0.5
    assert store.snapshot.value("strength") == pytest.approx(100 / 127)


def test_a_recalled_snapshot_does_not_jump_back(stage, tmp_path):
    store, midi, _, path = stage
    snapshots = Snapshots(store, tmp_path / "snapshots.json", pytest.fail).start()
    started(midi, path, Binding(cc=1, address=PREFIX + "/strength"))
    device = plugged(midi)
    store.set("strength", 0.9)
    snapshots.save(1)
    for value in (127, 0, 64):
        device.send(cc(1, value))
    assert store.snapshot.value("strength") == pytest.approx(64 / 127)
    snapshots.recall(1)
    device.send(cc(1, 66))
    assert store.snapshot.value("strength") == 0.9
    device.send(cc(1, 114))  # 0.9 is at 114.3
    device.send(cc(1, 120))
    assert store.snapshot.value("strength") == pytest.approx(120 / 127)
    snapshots.stop()


def test_program_changes_recall_snapshots(stage, tmp_path):
    store, midi, _, path = stage
    snapshots = Snapshots(store, tmp_path / "snapshots.json", pytest.fail).start()
    store.set("steps", 4)
    snapshots.save(5)
    store.set("steps", 1)
    started(midi, path)
    plugged(midi).send(Message("program_change", program=4))
    assert store.snapshot.value("steps") == 4
    snapshots.stop()


def test_pads_toggle_trigger_and_send_words(stage):
    store, midi, _, path = stage
    started(
        midi,
        path,
        Binding(note=36, address=PREFIX + "/bypass", toggle=True),
        Binding(note=37, address=PREFIX + "/reset"),
        Binding(note=38, address=PREFIX + "/prompt", args=("a burning ship",)),
        Binding(cc=50, address=PREFIX + "/anchor"),
        Binding(cc=51, address=PREFIX + "/fit"),
        Binding(note=39, address=PREFIX + "/strength", args=(0.125,)),
    )
    device = plugged(midi)
    for _ in range(3):
        device.send(note(36, 100))
        device.send(note(36, 0, "note_off"))
    device.send(note(37, 100))
    device.send(note(37, 0))
    device.send(note(38, 1))
    device.send(note(39, 1))
    for value in (127, 0, 127, 0):
        device.send(cc(50, value))
    device.send(cc(51, 127))
    now = store.snapshot
    assert (now.value("bypass"), now.value("resets"), now.value("prompt_1"), now.value("anchors")) == (
        True,
        1,
        "a burning ship",
        2,
    )
    assert (now.value("fit"), now.value("strength")) == ("stretch", 0.125)


def test_fourteen_bits_are_finer(stage):
    store, midi, _, path = stage
    started(midi, path, Binding(cc=2, address=PREFIX + "/slo/latency", fine=True))
    device = plugged(midi)
    for value in (0, 127, 64):
        device.send(cc(2, value))
    coarse = store.snapshot.value("slo_latency")
    device.send(cc(34, 1))
    low, high = 50.0, 2000.0
    assert store.snapshot.value("slo_latency") == pytest.approx(low + (64 * 128 + 1) / 16383 * (high - low), rel=1e-6)
    assert 0 < store.snapshot.value("slo_latency") - coarse < (high - low) / 8000


def test_learning_binds_the_knob_that_moves_and_survives_a_restart(stage):
    store, midi, _, path = stage
    midi.start()
    device = plugged(midi, "nanoKONTROL2:nanoKONTROL2 MIDI 1 20:0")
    answers = []
    caller = Caller(INTERNAL, reply=lambda *answer: answers.append(answer))
    midi.learn("/seed", caller)
    assert midi.learning == PREFIX + "/seed"
    device.send(cc(9, 60, channel=3))  # jitters
    device.send(cc(9, 61, channel=3))
    device.send(cc(12, 0, channel=3))
    assert not answers
    device.send(cc(12, 20, channel=3))
    knob = "nanoKONTROL2:nanoKONTROL2 MIDI 1: CC 12, channel 4"
    assert answers == [("/midi/learned", (PREFIX + "/seed", knob))]
    assert midi.learning == ""
    device.send(cc(12, 0, channel=3))
    device.send(cc(12, 127, channel=3))
    assert store.snapshot.value("seed") == 2**31 - 1
    mine = [b for b in load(path, TABLE) if b.address == PREFIX + "/seed"]
    assert mine == [Binding(port="nanoKONTROL2:nanoKONTROL2 MIDI 1", channel=4, cc=12, address=PREFIX + "/seed")]


def learn(midi, device, address, number):
    midi.learn(address)
    device.send(cc(number, 0))
    device.send(cc(number, 20))


def test_two_instances_keep_what_the_other_has_learned(stage):
    """Each wrote back the bindings that it had read at the start: what the other had learned since was gone."""
    _, midi, errors, path = stage
    midi.start()
    other = MidiInput(
        ControlStore(TABLE), path, lambda *e: errors.append(e), open_backend("tests.fakes.midi_loopback"), look_s=0.05
    ).start()
    device = plugged(midi)
    eventually(lambda: other.ports)
    learn(midi, device, "/seed", 50)
    learn(other, device, "/motion", 51)
    learn(midi, device, "/slo/latency", 52)
    other.stop()
    in_file = {b.address: b.cc for b in load(path, TABLE)}
    assert [in_file[PREFIX + a] for a in ("/seed", "/motion", "/slo/latency")] == [50, 51, 52]
    assert {PREFIX + "/seed", PREFIX + "/motion", PREFIX + "/slo/latency"} <= set(midi.knobs)
    assert not errors


def test_a_knob_that_could_not_be_saved_is_saved_with_the_next_one(stage, monkeypatch):
    _, midi, errors, path = stage
    midi.start()
    device = plugged(midi)
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    with files.locked(path):
        learn(midi, device, "/seed", 50)
    assert "another Tidecast is writing there" in errors[0][1]
    assert not path.exists()
    learn(midi, device, "/steps", 51)
    assert {b.address: b.cc for b in load(path, TABLE)}.items() >= {(PREFIX + "/seed", 50), (PREFIX + "/steps", 51)}


def test_a_slow_disk_while_learning_delays_no_control(stage, monkeypatch):
    store, midi, _, path = stage
    midi.start()
    device = plugged(midi)
    monkeypatch.setattr(files, "LOCK_WAIT_S", 60.0)
    with files.locked(path):
        port = threading.Thread(target=learn, args=(midi, device, "/seed", 50))
        port.start()
        eventually(lambda: PREFIX + "/seed" in midi.knobs)
        writer = threading.Thread(target=store.set, args=("mix", 0.5, Origin("osc:me", Trust.MACHINE)))
        writer.start()
        writer.join(30.0)
        assert not writer.is_alive()
    port.join()
    assert path.exists()


@pytest.mark.parametrize("first", ["the knob", "the watcher"])
def test_a_file_that_was_damaged_meanwhile_is_set_aside_and_the_knobs_in_use_are_kept(stage, first):
    """Whoever reads it first: the knob that is learned, or the watcher, after which there is no file."""
    _, midi, errors, path = stage
    if first == "the knob":
        midi._look_s = 3600.0
    started(midi, path, Binding(cc=40, address=PREFIX + "/motion"))
    eventually(lambda: midi.bindings == (Binding(cc=40, address=PREFIX + "/motion"),))
    files.write_atomically(path, b"[[binding]\n")  # in one step: half a file may be a whole one, with fewer bindings
    if first == "the watcher":
        eventually(lambda: errors)
    midi.learn("/seed")
    for value in (0, 20):
        midi._callback(KNOBS)(cc(50, value))
    assert "set aside as midi.damaged-1.toml" in errors[0][1]
    assert {b.address for b in load(path, TABLE)} == {PREFIX + "/motion", PREFIX + "/seed"}


def test_learning_over_osc_and_giving_it_up(stage):
    store, midi, _, _ = stage
    midi.start()
    assert store.handle(PREFIX + "/midi/learn", [PREFIX + "/black"])
    assert midi.learning == PREFIX + "/black"
    assert store.handle(PREFIX + "/midi/learn", [""])
    assert midi.learning == ""
    assert not store.handle(PREFIX + "/midi/learn", ["/nowhere"])
    assert not store.handle(PREFIX + "/midi/learn", ["/prompt/1"])
    device = plugged(midi)
    store.handle(PREFIX + "/midi/learn", ["black"])
    device.send(note(40, 90))
    device.send(note(40, 90))
    assert store.snapshot.value("black") is True


def test_changes_from_elsewhere_move_the_motors_and_its_own_do_not_come_back(stage):
    store, midi, _, path = stage
    started(midi, path, Binding(port=KNOBS, channel=2, cc=5, address=PREFIX + "/mix"))
    device = plugged(midi)
    eventually(lambda: cc(5, 127, 1) in device.received)
    store.set("mix", 0.5, Origin("osc:me", Trust.MACHINE))
    eventually(lambda: cc(5, 64, 1) in device.received)
    device.send(cc(5, 64, 1))
    device.send(cc(5, 70, 1))
    count = len(device.received)
    time.sleep(0.2)
    assert len(device.received) == count


def test_a_full_disk_while_learning_is_reported_and_the_knob_works(stage, monkeypatch):
    store, midi, errors, path = stage
    midi.start()
    device = plugged(midi)
    monkeypatch.setattr("bridge.control.files.os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "disk full")))
    midi.learn("/steps")
    device.send(cc(3, 0))
    device.send(cc(3, 127))
    assert "disk full" in errors[0][1]
    assert not path.exists()
    device.send(cc(3, 0))
    device.send(cc(3, 127))
    assert store.snapshot.value("steps") == 4


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[[binding]\n", "line 1"),
        ('[[binding]]\ncc = 7\naddress = "/tidecast/nowhere"\n', "binding.1: Value error, there is no control"),
        ('[[binding]]\naddress = "/tidecast/mix"\n', "either cc or note"),
        ('[[binding]]\ncc = 200\naddress = "/tidecast/mix"\n', "binding.1.cc"),
        ('[[binding]]\ncc = 40\nfine = true\naddress = "/tidecast/mix"\n', "0 to 31"),
        ('[[binding]]\ncc = 4\ntoggle = true\naddress = "/tidecast/mix"\n', "on or off"),
        ('[[binding]]\ncc = 4\naddress = "/tidecast/prompt/1"\n', "words to set"),
        ('[[binding]]\ncc = 4\naddress = "/tidecast/snapshot/recall"\n', "number"),
        ("colour = 3\n", "colour"),
    ],
)
def test_a_damaged_file_is_named_with_its_place_set_aside_and_the_defaults_are_used(stage, text, part):
    _, midi, errors, path = stage
    path.write_text(text)
    midi.start()
    assert part in errors[0][1]
    assert (path.parent / "midi.damaged-1.toml").read_text() == text
    assert not path.exists()
    assert midi.knobs


def test_an_unreadable_file_is_left_where_it_is(tmp_path):
    path = tmp_path / "midi.toml"
    path.mkdir()
    with pytest.raises(BindingsError, match="cannot be read"):
        load(path, TABLE)
    assert path.is_dir()


def test_no_midi_on_this_system_says_what_to_do():
    try:
        backend = open_backend()
    except MidiError as error:
        assert "snd-seq" in str(error) or "pip install" in str(error)
        pytest.skip(f"the real MIDI backend cannot be tested here: {error.message}")
    assert isinstance(backend.get_input_names(), list)


def test_the_real_backend_carries_a_message_through_virtual_ports(tmp_path):
    try:
        backend = open_backend()
        out = backend.open_output("tidecast test knobs", virtual=True)
    except (MidiError, NotImplementedError, OSError) as error:
        pytest.skip(f"no virtual MIDI ports here: {error}")
    store = ControlStore(TABLE)
    midi = MidiInput(store, tmp_path / "midi.toml", pytest.fail, backend, port="tidecast test", look_s=0.1).start()
    eventually(lambda: midi.ports)
    for value in (127, 0, 32):
        out.send(cc(1, value))
    eventually(lambda: store.snapshot.value("strength") == pytest.approx(32 / 127))
    midi.stop()
    out.close()


# Without ports


@settings(deadline=None)
@given(st.floats(0, 127), st.lists(st.integers(0, 127), min_size=1))
def test_a_knob_never_jumps_a_control_by_more_than_its_own_step(current, positions):
    takeover = Takeover()
    value, last = current, None
    for position in positions:
        if takeover.moved(position, value):
            step = abs(position - last) if last is not None else 0
            assert abs(position - value) <= max(step, 2.0)
            value = position
        last = position


@pytest.mark.parametrize("control", [c for c in TABLE.controls if c.kind is not Kind.TEXT], ids=lambda c: c.name)
def test_every_control_can_be_learned_by_address_and_name(control):
    full = PREFIX + control.address
    assert resolve(full, TABLE) == resolve(control.address, TABLE) == resolve(control.name, TABLE) == full
    knob = Knob("x", 1, "cc", 3)
    assert learned((), knob, full, TABLE)[0].matches(knob)


def test_texts_cannot_be_learned():
    with pytest.raises(ControlError, match="words to set"):
        resolve(TABLE.by_name["prompt_1"].address, TABLE)


def test_the_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "deep" / "midi.toml"
    bindings = (
        *DEFAULT,
        Binding(port="a", channel=16, note=127, address=PREFIX + "/snapshot/recall", args=(3, 2.5)),
        Binding(cc=0, address=PREFIX + "/mix", fine=True),
    )
    save(path, bindings)
    assert load(path, TABLE) == bindings


@pytest.mark.parametrize(
    ("name", "stable"),
    [
        ("nanoKONTROL2:nanoKONTROL2 MIDI 1 20:0", "nanoKONTROL2:nanoKONTROL2 MIDI 1"),
        ("nanoKONTROL2 1", "nanoKONTROL2"),
        ("Launch Control XL", "Launch Control XL"),
    ],
)
def test_names_lose_what_changes_from_plug_to_plug(name, stable):
    assert stable_name(name) == stable


def test_the_loopback_is_strict():
    backend = mido.Backend("tests.fakes.midi_loopback", load=True)
    with pytest.raises(OSError, match="unknown port"):
        backend.open_input("nothing here")
    device = cables.plug("strict")
    with pytest.raises(OSError, match="already"):
        cables.plug("strict")
    output = backend.open_output("strict")
    cables.unplug("strict")
    with pytest.raises(OSError, match="not plugged in"):
        output.send(cc(1, 1))
    with pytest.raises(OSError, match="not plugged in"):
        device.send(cc(1, 1))
