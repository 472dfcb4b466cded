"""`tidecast show export` and `import`: real commands on a state folder."""

import json
import subprocess
import sys
import time

import pytest

from bridge.control.midi import bindings
from bridge.control.midi.bindings import Binding
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.show.folder import BINDINGS, SNAPSHOTS
from bridge.table import TABLE

KNOBS = (Binding(cc=9, address="/tidecast/mix"),)


def show(*words):
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli.main", "show", *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def kept(folder, *numbers):
    """A state folder with snapshots."""
    snapshots = Snapshots(ControlStore(TABLE), folder / SNAPSHOTS, pytest.fail).start()
    for number in numbers:
        snapshots.save(number)
        snapshots.rename(number, f"Name {number}")
    snapshots.stop()
    return folder


def numbers_in(folder):
    return set(json.loads((folder / SNAPSHOTS).read_bytes())["snapshots"])


def test_a_show_goes_to_another_folder_and_what_was_there_comes_back(tmp_path):
    here, there, file = kept(tmp_path / "here", 1, 2), kept(tmp_path / "there", 5), tmp_path / "ballet.tidecast"
    bindings.save(here / BINDINGS, KNOBS)
    code, out, _ = show("export", file, "--state-dir", here)
    assert code == 0 and "(2 snapshots, 1 MIDI binding)" in out
    running = Snapshots(ControlStore(TABLE), there / SNAPSHOTS, pytest.fail).start()
    code, out, _ = show("import", file, "--state-dir", there)
    assert code == 0 and "Imported: 2 snapshots, 1 MIDI binding" in out
    assert numbers_in(there) == {"1", "2"} and bindings.load(there / BINDINGS, TABLE) == KNOBS
    end = time.monotonic() + 10.0
    while running.names() != {1: "Name 1", 2: "Name 2"}:  # a Tidecast that runs reads them
        assert time.monotonic() < end
        time.sleep(0.02)
    running.stop()
    kept_file = there / "replaced-1.tidecast"
    assert str(kept_file) in out
    code, _, _ = show("import", kept_file, "--state-dir", there)
    assert code == 0 and numbers_in(there) == {"5"}
    assert bindings.load(there / BINDINGS, TABLE) == bindings.defaults(TABLE)


def test_what_is_wrong_is_said_with_code_2_and_changes_nothing(tmp_path):
    folder = kept(tmp_path / "state", 1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    wrong, there = tmp_path / "wrong.tidecast", tmp_path / "there.tidecast"
    wrong.write_text('{"tidecast": "show", "version": 1, "controls": {"black": true}}')
    there.write_text("mine")
    for words, said in (
        (("import", wrong), "A show does not set black"),
        (("import", tmp_path / "none.tidecast"), "cannot be read"),
        (("export", there), "There is a file"),
    ):
        code, _, err = show(*words, "--state-dir", folder)
        assert code == 2 and said in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert there.read_text() == "mine"
    assert show("export", there, "--state-dir", folder, "--force")[0] == 0
    assert json.loads(there.read_bytes())["tidecast"] == "show"


def test_a_show_of_a_damaged_folder_is_not_exported(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / SNAPSHOTS).write_text("{")
    code, _, err = show("export", tmp_path / "x.tidecast", "--state-dir", folder)
    assert code == 2 and "set aside as snapshots.damaged-1.json" in err and not (tmp_path / "x.tidecast").exists()
