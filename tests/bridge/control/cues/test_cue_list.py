"""The model of a cue list, its file, and its changes: what is wrong is named with cue and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bridge.control.cues import editing
from bridge.control.cues.cue_file import MAX_BYTES, CueFile, as_toml
from bridge.control.cues.cue_list import EMPTY, MAX_CUES, Cue, CueError, CueList, parsed
from bridge.control.cues.lengths import Length, Unit, length, wait_length
from bridge.table import TABLE
from tests.bridge.control.cues.stage import listed

PAGE = Path(__file__).parents[4] / "docs" / "artists" / "cues.md"

WHOLE = """
loop = true

[[cue]]
name = "Intro"
snapshot = 3
set = { strength = 0.2, "/tidecast/steps" = 3, "/mix" = 0.5 }
glide = "4 bars"
wait = "GO"

[[cue]]
name = "Build"
prompt = "a burning forest"
wait = "16 beats"
snap = "bar"
loop = "Intro"
times = 2
[cue.set]
tempo_bpm = 128
"""


def test_a_file_is_read_as_it_is_written() -> None:
    cues = parsed(tomllib.loads(WHOLE), TABLE)
    intro, build = cues.cue
    assert cues.loop and intro.values == {"strength": 0.2, "steps": 3, "mix": 0.5}
    assert (intro.glide, intro.wait) == (Length(4.0, Unit.BARS), None)
    assert build.holds == Length(16.0, Unit.BEATS) and build.values == {"tempo_bpm": 128.0}
    assert build.own_values(TABLE) == {
        "prompt_1": "a burning forest",
        "weight_1": 1.0,
        "weight_2": 0.0,
        "weight_3": 0.0,
        "weight_4": 0.0,
        "tempo_bpm": 128.0,
    }
    assert parsed(tomllib.loads(as_toml(cues).decode()), TABLE) == cues
    assert as_toml(EMPTY) == b"" and parsed({}, TABLE) == EMPTY


def test_the_example_of_the_page_is_valid() -> None:
    block = PAGE.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    cues = parsed(tomllib.loads(block), TABLE)
    assert len(cues.cue) >= 4 and {cue.holds and cue.holds.unit for cue in cues.cue} == {None, *Unit}
    used = {key for cue in cues.cue for key in cue.row()}
    assert used == {"name", "snapshot", "prompt", "set", "glide", "wait", "follow", "loop", "times", "snap"}


def cue(**keys: Any) -> dict[str, Any]:
    return {"cue": [{"name": "One", "snapshot": 1}, {"name": "Drop", **keys}]}


WRONG: dict[str, tuple[Any, str]] = {
    "unknown key": (cue(snapshot=1, glid="2 s"), "cue 2 (Drop), glid: there is no such key"),
    "unknown key of the list": ({"loops": True}, "loops: there is no such key"),
    "unknown control": (cue(set={"strenght": 1.0}), "cue 2 (Drop): set: there is no control 'strenght'; did you mean"),
    "a twin": (cue(set={"/tidecast/mix/norm": 1.0}), "no control '/tidecast/mix/norm'"),
    "a command": (cue(set={"/tidecast/quit": 1}), "no control '/tidecast/quit'"),
    "a panic button": (cue(set={"black": True}), "set: black is not set by a cue"),
    "wrong value": (cue(set={"steps": "many"}), "cue 2 (Drop): set, steps: 'many' is not a number"),
    "out of range": (cue(set={"mix": 1.5}), "set, mix: 1.5 is not within 0 to 1"),
    "twice": (cue(set={"mix": 1.0, "/mix": 0.5}), "set: mix is there twice"),
    "nothing": (cue(), "cue 2 (Drop): it sets nothing"),
    "no snapshot of that number": (cue(snapshot=65), "cue 2 (Drop), snapshot:"),
    "length": (cue(snapshot=1, glide="4 barns"), "cue 2 (Drop), glide: '4 barns' is not a length"),
    "wait": (cue(snapshot=1, wait="soon"), "cue 2 (Drop), wait: 'soon' is not a length"),
    "too long a wait": (cue(snapshot=1, wait="2000 bars"), "too long; 1024 bars at most"),
    "wait and follow": (cue(snapshot=1, wait="1 s", follow=True), "give either wait or follow"),
    "times without loop": (cue(snapshot=1, times=3), "times: it needs loop"),
    "loop to nowhere": (cue(snapshot=1, loop="Coda"), "cue 2 (Drop), loop: there is no cue named 'Coda'"),
    "snap": (cue(snapshot=1, snap="3-bars"), "cue 2 (Drop), snap: '3-bars' is not one of off"),
    "the same name": ({"cue": [{"name": "A", "snapshot": 1}] * 2}, "cue 1 (A): there is another cue of this name"),
    "a long name": ({"cue": [{"name": "x" * 41, "snapshot": 1}]}, "cue 1 (xxx"),
    "a name with a line break": ({"cue": [{"name": "a\x00b", "snapshot": 1}]}, "is not a name"),
    "a long prompt": (cue(prompt="x" * 1001), "cue 2 (Drop), prompt:"),
    "too many": ({"cue": [{"snapshot": 1}] * (MAX_CUES + 1)}, "cue: "),
    "no list": ({"cue": 3}, "cue: "),
    "no table": ({"cue": [3]}, "cue 1: "),
    "not even that": ([1], "valid dictionary"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_cue_and_key(name: str) -> None:
    content, part = WRONG[name]
    with pytest.raises(CueError) as error:
        parsed(content, TABLE)
    assert part in error.value.message and len(error.value.message) < 400


@pytest.mark.parametrize("text", ["", "x", "-1 s", "nan", "1e400", "1 s s", "1" * 400, "4000 s", [], None, True])
def test_no_lengths(text: Any) -> None:
    with pytest.raises(ValueError, match=r"length|long"):
        length(text)


def test_lengths() -> None:
    assert [str(length(text)) for text in (2, "2.50", "1 beat", "8beats", " 1 BAR ", ".5 s")] == [
        "2 s",
        "2.5 s",
        "1 beat",
        "8 beats",
        "1 bar",
        "0.5 s",
    ]
    assert wait_length("go") is None and wait_length("4 bars") == Length(4.0, Unit.BARS)


def test_a_file_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    path = tmp_path / "cues.toml"
    file = CueFile(path, TABLE)
    assert not file.changed() and file.read() is None
    path.write_text(WHOLE)
    assert file.changed() and file.read() == parsed(tomllib.loads(WHOLE), TABLE)
    for content, part in (
        (b"[[cue]\n", "not valid TOML"),
        (b"\xff", "not valid TOML"),
        (b"#" * (MAX_BYTES + 1), "too large"),
        (b'[[cue]]\nname = "X"\nset = {mixx = 1}', "cue 1 (X): set: there is no control 'mixx'"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
    ):
        path.write_bytes(content)
        with pytest.raises(CueError) as error:
            file.read()
        assert str(path) in error.value.message and part in error.value.message
    path.unlink()
    path.mkdir()
    with pytest.raises(CueError, match="cannot be read"):
        file.read()


def names(edit: editing.Edit) -> list[str]:
    return [cue.name for cue in edit.cues.cue]


@pytest.fixture
def cues() -> CueList:
    return listed(*({"name": name, "snapshot": 1, "loop": "A" if name == "C" else ""} for name in "ABC"), loop=True)


def test_changes_keep_the_rest(cues: CueList) -> None:
    edit = editing.added(cues, {"mix": 0.5}, "X")
    assert names(edit) == ["A", "B", "C", "X"] and edit.places == (0, 1, 2) and edit.cues.loop
    assert names(editing.added(cues, {"mix": 0.5})) == ["A", "B", "C", ""]
    assert names(editing.moved(edit.cues, 4, 2)) == ["A", "X", "B", "C"]
    assert names(editing.moved(cues, 1, 99)) == ["B", "C", "A"]
    assert names(editing.moved(cues, 1, 3)) == ["B", "C", "A"] and editing.moved(cues, 1, 3).places == (2, 0, 1)
    assert names(editing.removed(cues, 2)) == ["A", "C"] and editing.removed(cues, 2).places == (0, None, 1)
    renamed = editing.named(cues, TABLE, 1, "Refrain").cues
    assert renamed.cue[2].loop == "Refrain" and editing.named(cues, TABLE, 1, "").cues.cue[2].loop == ""
    assert editing.waiting(cues, TABLE, 1, "follow").cues.cue[0].follow
    assert editing.gliding(cues, TABLE, 1, "2").cues.cue[0].glide == Length(2.0, Unit.SECONDS)
    assert not editing.looped(cues, 0).cues.loop
    assert cues.cue[0].name == "A" and cues.cue[0].glide is None, "nothing is changed in place"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda cues: editing.removed(cues, 4), "There is no cue 4; the list has 3"),
        (lambda cues: editing.removed(cues, 0), "There is no cue 0"),
        (lambda cues: editing.removed(cues, 1), "Cue 3 loops to A"),
        (lambda cues: editing.named(cues, TABLE, 1, "B"), "another cue of this name"),
        (lambda cues: editing.named(cues, TABLE, 1, "x" * 50), "name"),
        (lambda cues: editing.added(cues, {"mix": 1.0}, "A"), "another cue of this name"),
        (lambda cues: editing.added(cues, {"mix": 1.0}, "\x00"), "not a name"),
        (lambda cues: editing.waiting(cues, TABLE, 1, "soon"), "GO, or follow"),
        (lambda cues: editing.gliding(cues, TABLE, 1, "soon"), "glide: "),
        (lambda cues: editing.added(listed(*[{"snapshot": 1}] * MAX_CUES), {"mix": 1.0}), "256 cues at most"),
        (lambda cues: editing.target(("A", 2)), "2 came"),
    ],
)
def test_a_change_that_cannot_be_made_says_why(cues: CueList, change: Any, part: str) -> None:
    with pytest.raises(CueError) as error:
        change(cues)
    assert part in error.value.message


def test_a_full_list_takes_no_more_and_fits_its_file() -> None:
    look = {c.name: c.default for c in TABLE.controls if c.stored == "always"}
    full = editing.appended(EMPTY, [Cue(values=look)] * (MAX_CUES + 5)).cues
    assert len(full.cue) == MAX_CUES and len(as_toml(full)) < MAX_BYTES
    assert editing.free_name(listed({"name": "Take 1", "snapshot": 1}), "Take") == "Take 2"
