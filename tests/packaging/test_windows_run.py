"""`python -m tests.windows`: its list of modules, what it reads of a run, and its words where it cannot be prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.windows import modules, prepare
from tests.windows.wine import CannotPrepare, Wine

REPORT = """<testsuites><testsuite time="3.5">
<testcase name="a"/><testcase name="b"><skipped/></testcase>
<testcase name="c"><failure/></testcase><testcase name="d"><error/></testcase>
</testsuite></testsuites>"""


def test_every_reason_is_about_a_module_and_some_modules_are_run() -> None:
    found = list(modules.modules())
    for begin in modules.LEFT_OUT:
        assert any(name.startswith(begin) for name in found), f"{begin} was moved"
    run = [name for name in found if not modules.reason(name)]
    assert {"bridge/ipc/test_job_object.py", "bridge/process/test_supervisor.py", "bridge/test_config.py"} <= {*run}
    assert run[0].startswith("bridge/ipc/")


def test_a_report_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert modules._read("m", report) == modules.Verdict("m", 1, 1, ("c", "d"), 3.5)


def test_it_says_why_it_cannot_be_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(CannotPrepare, match=r"Wine 9 or newer and Xvfb are not installed, and debootstrap, unshare"):
        prepare.debian(tmp_path, lambda text: None)


def test_a_folder_is_made_once_and_only_whole(tmp_path: Path) -> None:
    folder = tmp_path / "it"

    def interrupted(part: Path) -> None:
        part.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.made(folder, print, interrupted)
    assert not folder.exists()
    pins = tmp_path / "pins.txt"
    pins.write_text("numpy==2")
    prepare.made(folder, print, lambda part: part.mkdir(), of=[pins])
    prepare.made(folder, print, interrupted, of=[pins])
    assert folder.is_dir()
    pins.write_text("numpy==3")
    with pytest.raises(KeyboardInterrupt):
        prepare.made(folder, print, interrupted, of=[pins])


@pytest.mark.parametrize("debian", [None, Path("/cache/debian")])
def test_a_program_without_network_has_loopback_only(debian: Path | None) -> None:
    wine = Wine(Path("/cache"), debian)
    command = wine.command("cmd", "/c", "Demo.cmd", network=False)
    assert "--net" in command and command[-4:] == ["wine", "cmd", "/c", "Demo.cmd"]
    assert "--net" not in wine.command("cmd")
    assert prepare.windows_path(Path("/a b/é.cmd")) == r"Z:\a b\é.cmd"
