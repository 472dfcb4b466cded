"""Show files: what is saved comes back, every wrong file is refused before anything changes, and an opened show can be
taken back."""

import base64
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from bridge.control.midi import bindings as midi_file
from bridge.control.midi.bindings import DEFAULT, Binding
from bridge.control.midi.switch import MidiSwitch
from bridge.control.origin import Origin, Trust
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.stored.content import COLOR_KEY, EXTRAS, NAME_KEY, PICTURE_KEY
from bridge.pipeline.input_policy import InputPolicy
from bridge.show.folder import BINDINGS, SNAPSHOTS
from bridge.show.live import LiveShow
from bridge.show.show_file import MAX_BINDINGS, MAX_BYTES, Show, ShowError, pack, show_names, unpack
from bridge.table import TABLE
from engine.control import PREFIX, Kind
from engine.errors import TidecastError
from engine.frame import Frame

HERE = Origin("web:http", Trust.MACHINE)
THERE = Origin("web:http", Trust.NETWORK)
KNOBS = (Binding(cc=9, address="/tidecast/mix"), Binding(note=3, address="/tidecast/snapshot/recall", args=(3, 2.0)))
PANIC = ("bypass", "freeze", "black")


class Running:
    """A Tidecast without engine and video."""

    def __init__(self, folder):
        self.store = ControlStore(TABLE)
        self.store.restrict("input", InputPolicy((), lambda: ()))
        self.errors = []
        self.folder = folder
        report = lambda *e: self.errors.append(e)  # noqa: E731
        frame = Frame(np.full((90, 160, 3), 77, np.uint8))
        self.kept = Snapshots(self.store, folder / SNAPSHOTS, report, lambda: frame).start()
        self.midi = MidiSwitch(self.store, folder / BINDINGS, report)
        self.show = LiveShow(self.store, self.kept, self.midi, report)

    def state(self):
        """Everything that a show holds, and what it never touches."""
        return (
            self.store.values(),
            {number: pack_one(stored) for number, stored in self.kept.all().items()},
            self.midi.bindings(),
        )


def pack_one(stored):
    return json.loads(pack(Show({1: stored}), TABLE))["snapshots"]["1"]


@pytest.fixture
def running(tmp_path):
    made = []

    def start(name="here"):
        made.append(Running(tmp_path / name))
        return made[-1]

    yield start
    for one in made:
        one.kept.stop()


def eventually(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def content(**changes):
    """A valid show as JSON, with some parts replaced."""
    whole = {
        "tidecast": "show",
        "version": 1,
        "program": "0.1.0",
        "controls": {"mix": 0.5, "prompt_1": "森 forest"},
        "snapshots": {"7": {"mix": 0.25, NAME_KEY: "Storm", COLOR_KEY: "blue"}},
        "midi": [{"cc": 9, "address": "/tidecast/mix"}],
    }
    return json.dumps({**whole, **changes}).encode()


def test_a_saved_show_comes_back_on_another_machine_with_names_colours_pictures_bindings_and_values(running):
    here, there = running(), running("there")
    numbers = {c.name: c.from_norm(0.3) for c in TABLE.controls if c.numeric}
    switches = {c.name: not c.default for c in TABLE.controls if c.kind is Kind.BOOL}
    here.store.set_many({**numbers, **switches, "prompt_1": "森 forest", "input": "pattern:bars"})
    here.kept.save(1, "input seed")
    here.kept.save(64)
    here.kept.rename(64, "Storm")
    here.kept.color(64, "blue")
    here.midi.replace(KNOBS)
    data = here.show.save()
    there.kept.save(5)
    show = there.show.open(data, HERE)
    assert show.words == f"2 snapshots, 2 MIDI bindings, {len(show_names(TABLE))} controls"
    assert there.state()[1:] == here.state()[1:]
    assert (there.kept.names(), there.kept.colors()) == ({64: "Storm"}, {64: "blue"})
    assert there.kept.pictures() == here.kept.pictures() and set(here.kept.pictures()) == {1, 64}
    before, now, saved = ControlStore(TABLE).values(), there.store.values(), here.store.values()
    left = {*PANIC, "record", "record_input", "compare", "tempo_bpm", "tempo_bend", "cue_capture", "mask_view"}
    assert now == {name: before[name] if name in left else saved[name] for name in now}
    there.kept.stop()
    there.store.set("mix", 0.9)
    again = running("there")
    again.kept.recall(64)
    assert again.store.snapshot.value("mix") == pytest.approx(0.3) and again.midi.bindings() == KNOBS


def test_opening_is_one_step_that_undo_takes_back(running):
    here = running()
    here.store.set_many({"mix": 0.9, "strength": 0.8, "black": True})
    here.kept.save(1)
    here.kept.save(2)
    here.midi.replace(KNOBS)
    before = here.state()
    here.show.open(content(controls={"mix": 0.5, "strength": 0.1}), HERE)
    assert here.kept.numbers() == (7,) and here.store.snapshot.value("mix") == 0.5
    assert here.midi.bindings() == KNOBS[:1]
    here.store.set("strength", 0.33)  # by hand, since
    assert here.store.handle(PREFIX + "/snapshot/undo", ())
    eventually(lambda: here.midi.bindings() == KNOBS)
    assert here.state() == ({**before[0], "strength": 0.33}, *before[1:])
    here.kept.stop()
    assert set(json.loads((here.folder / SNAPSHOTS).read_bytes())["snapshots"]) == {"1", "2"}


def test_another_tidecast_sees_the_opened_show(running):
    here, other = running(), running()
    here.show.open(content(), HERE)
    eventually(lambda: other.kept.numbers() == (7,))
    assert other.kept.names() == {7: "Storm"} and other.midi.bindings() == KNOBS[:1]


DAMAGED_PICTURE = base64.b64encode(b"no picture").decode()
REFUSED = {
    "empty": (b"", "not a show"),
    "no JSON": (b"{", "not a show"),
    "a list": (b"[1]", "not a show"),
    "another JSON": (b'{"version": 1, "snapshots": {}}', "not a show"),
    "deep": (b"[" * 100_000, "not a show"),
    "binary": (b"\xff\xd8\xff\xe0 a picture", "not a show"),
    "infinite": (content().replace(b"0.25", b"Infinity"), "not a show"),
    "too large": (content() + b" " * MAX_BYTES, "too large"),
    "newer": (
        content(version=2),
        "format 2; this Tidecast reads format 1. Open it with the version that saved it: 0.1.0",
    ),
    "no version": (content(version=None), "format None"),
    "a version that is true": (content(version=True), "format True"),
    "more keys": (content(banks={}), "'banks' is not part of a show"),
    "controls as a list": (content(controls=[]), "controls: \\[\\] is not an object"),
    "unknown control": (content(controls={"warp": 1}), "no control named 'warp'"),
    "out of range": (content(controls={"mix": 7.5}), "Controls, mix: 7.5 is not valid; 1.0 would be"),
    "text for a number": (content(controls={"mix": "0.5"}), "Controls, mix: '0.5' is not valid"),
    "on for a number": (content(controls={"mix": True}), "Controls, mix: True is not valid"),
    "no choice": (content(controls={"fit": "round"}), "Controls, fit: 'round' is not one of"),
    "half a surrogate": (content(controls={"prompt_1": "\ud800"}), "Controls, prompt_1"),
    "a list for a number": (content(controls={"mix": [1]}), "Controls, mix"),
    "panic": (content(controls={"black": True}), "A show does not set black"),
    "recording": (content(controls={"record": True}), "A show does not set record"),
    "snapshots as a list": (content(snapshots=[1]), "snapshots: \\[1\\] is not an object"),
    "number 0": (content(snapshots={"0": {}}), "'0' is not the number of a snapshot"),
    "number 65": (content(snapshots={"65": {}}), "'65' is not the number of a snapshot"),
    "number 01": (content(snapshots={"01": {}}), "'01' is not the number of a snapshot"),
    "too many": (content(snapshots={str(n): {} for n in range(1, 66)}), "65 snapshots; Tidecast has 64"),
    "a snapshot that is none": (content(snapshots={"1": 3}), "Snapshot 1: 3 is not an object"),
    "a large snapshot": (content(snapshots={"1": {f"x{n}": 1 for n in range(257)}}), "257 entries"),
    "a snapshot out of range": (content(snapshots={"9": {"mix": -1}}), "Snapshot 9, mix: -1 is not valid; 0.0 would"),
    "a long name": (content(snapshots={"9": {NAME_KEY: "n" * 41}}), "Snapshot 9, 'as': .* is not a name of up to 40"),
    "a name in lines": (content(snapshots={"9": {NAME_KEY: "a\nb"}}), "is not a name"),
    "a colour": (content(snapshots={"9": {COLOR_KEY: "mauve"}}), "'mauve' is not one of red"),
    "words": (content(snapshots={"9": {EXTRAS: ["black"]}}), "is not a list of what can be stored"),
    "a nested value": (content(snapshots={"9": {"warp": {"a": 1}}}), "is not a number or a text"),
    "bindings as text": (content(midi="cc"), "midi: 'cc' is not a list"),
    "too many bindings": (content(midi=[{"cc": 1, "address": "/tidecast/mix"}] * (MAX_BINDINGS + 1)), "1024 at most"),
    "a binding to nothing": (content(midi=[{"cc": 1, "address": "/tidecast/warp"}]), "MIDI binding 1: there is no"),
    "a binding of no knob": (content(midi=[{"address": "/tidecast/mix"}]), "MIDI binding 1: either cc or note"),
    "a knob out of range": (content(midi=[{"cc": 128, "address": "/tidecast/mix"}]), "MIDI binding 1, cc: "),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_file_is_refused_with_a_sentence_and_changes_nothing(running, data, words):
    here = running()
    here.kept.save(1)
    before = here.state()
    for act in (here.show.check, here.show.open):
        with pytest.raises(ShowError, match=words) as refused:
            act(data, HERE)
        assert len(str(refused.value)) < 400
    assert here.state() == before and not (here.folder / BINDINGS).exists()
    with pytest.raises(TidecastError, match="nothing to take back"):
        here.kept.undo() or here.kept.undo()


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (content(controls={"input": "file:/etc/passwd"}), "Controls"),
        (content(snapshots={"3": {EXTRAS: ["input"], "input": "file:/etc/passwd"}}), "Snapshot 3"),
        (content(midi=[{"note": 1, "address": "/tidecast/input", "args": ["file:/etc/passwd"]}]), "MIDI binding 1"),
    ],
    ids=["controls", "snapshot", "binding"],
)
def test_a_show_from_another_machine_obeys_the_policy_of_inputs_everywhere_in_it(running, data, where):
    here = running()
    before = here.state()
    with pytest.raises(ShowError, match=f"{where}: Senders on other machines may not choose 'file:/etc/passwd'"):
        here.show.open(data, THERE)
    assert here.state() == before
    here.show.open(data, HERE)
    assert here.state() != before


def test_an_input_that_no_recall_sets_is_not_judged_and_not_kept(running):
    here = running()
    here.show.open(content(snapshots={"3": {"input": "file:/x", "black": True, "mix": 0.5, "warp": 3}}), THERE)
    assert here.kept.all()[3] == {"mix": 0.5, "warp": 3}, "what another version knows stays"


@pytest.mark.parametrize("picture", [DAMAGED_PICTURE, 5, "A" * 30_000])
def test_a_damaged_picture_costs_only_itself(running, picture):
    here = running()
    here.show.open(content(snapshots={"3": {"mix": 0.5, PICTURE_KEY: picture}}), HERE)
    assert here.kept.all()[3] == {"mix": 0.5}


def test_what_is_not_valid_here_is_not_exported_so_that_every_export_can_be_opened(running):
    here = running()
    here.folder.mkdir()
    old = {"mix": 7.0, "fit": "round", "strength": None, COLOR_KEY: "mauve", NAME_KEY: "n" * 50, "warp": [1], "x": 2}
    (here.folder / SNAPSHOTS).write_text(json.dumps({"version": 1, "snapshots": {"1": old, "99": {"mix": 0.5}}}))
    eventually(lambda: here.kept.numbers() == (1, 99))
    assert unpack(here.show.save(), TABLE).snapshots == {1: {"mix": 1.0, "x": 2}}


def test_the_largest_show_of_pictures_fits_and_what_does_not_fit_says_so():
    out = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (160, 160, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG", quality=70)
    assert 12_000 < out.tell() <= 16 * 1024, "as large as a picture may be"
    look = {c.name: c.default for c in TABLE.controls} | {"prompt_1": "x" * 500}
    stored = {**look, PICTURE_KEY: base64.b64encode(out.getvalue()).decode()}
    data = pack(Show(dict.fromkeys(range(1, 65), stored), DEFAULT, look), TABLE)
    assert len(data) < MAX_BYTES and len(unpack(data, TABLE).snapshots) == 64
    with pytest.raises(ShowError, match="a file may have 2,097,152"):
        pack(Show({n: {"prompt_1": "x" * 40_000} for n in range(1, 65)}), TABLE)


def test_bindings_that_cannot_be_written_leave_everything_as_it_was(running, monkeypatch):
    here = running()
    here.kept.save(1)
    before = here.state()

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(midi_file, "write_atomically", full)
    with pytest.raises(TidecastError, match="No space left"):
        here.show.open(content(), HERE)
    assert here.state() == before


def test_a_rule_that_forbids_at_the_last_moment_brings_the_bindings_back(running):
    here = running()
    here.midi.replace(KNOBS)
    calls = []

    def second(value, origin):
        calls.append(value)
        if len(calls) > 1:
            raise TidecastError("Not now.")
        return value

    here.store.restrict("mix", second)
    before = here.state()
    with pytest.raises(TidecastError, match="Not now"):
        here.show.open(content(snapshots={}), HERE)
    assert here.state() == before
