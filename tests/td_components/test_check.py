"""The checker: it accepts the committed component, and names the fault of each broken one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from td_components import check
from td_components.definition.spec import HERE
from td_components.output import expanded

TREE = "Tidecast.tox.dir"
TOC = "Tidecast.tox.toc"


def test_the_checker_accepts_our_tree():
    assert check.faults(HERE) == []
    assert check.faults(HERE / TREE) == []


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / path
        text = file.read_bytes()
        assert old.encode() in text, f"{old!r} is not in {path}"
        file.write_bytes(text.replace(old.encode(), new.encode(), 1))

    return change


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def swap_first_two_listed(folder: Path) -> None:
    toc = folder / TOC
    lines = toc.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    toc.write_text("\n".join(lines) + "\n")


def add_unlisted(folder: Path) -> None:
    shutil.copy(folder / TREE / "Tidecast/in1.n", folder / TREE / "Tidecast/in2.n")


def cut_text(folder: Path) -> None:
    path = folder / TREE / "Tidecast/link.text"
    path.write_bytes(path.read_bytes()[:-10])


def break_script(folder: Path) -> None:
    path = folder / TREE / "Tidecast/link.text"
    path.write_bytes(expanded.text_file("def broken(:\n"))


def windows_line_ends(folder: Path) -> None:
    path = folder / TREE / "Tidecast/fit.n"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no table of contents": (remove(TOC), "Tidecast.tox.toc: is missing"),
    "listed file is gone": (remove(f"{TREE}/Tidecast/fit.n"), "lists Tidecast/fit.n, which is not there"),
    "file is not listed": (add_unlisted, "does not list Tidecast/in2.n"),
    "wrong order": (swap_first_two_listed, "stands at the wrong place"),
    "wrong header": (edit(TOC, "# 4 0 0 0 1", "# 3 0 0 0 1"), "not with '# 4 0 0 0 1'"),
    "unknown operator": (edit(f"{TREE}/Tidecast/fit.n", "TOP:fit", "TOP:fitt"), "the operator type TOP:fitt"),
    "no end": (edit(f"{TREE}/Tidecast/fit.n", "\nend", ""), "fit.n:8: the file ends too early"),
    "wire to nothing": (edit(f"{TREE}/Tidecast/fit.n", "\tin1", "\tin7"), "fit: is wired to in7"),
    "wire across families": (edit(f"{TREE}/Tidecast/fit.n", "\tin1", "\tlog"), "which is not a TOP"),
    "circle of wires": (edit(f"{TREE}/Tidecast/fit.n", "\tin1", "\tswitch"), "run in a circle"),
    "dock to nothing": (edit(f"{TREE}/Tidecast/osc_callbacks.n", "dock osc_in", "dock gone"), "is docked to gone"),
    "unknown parameter": (
        edit(f"{TREE}/Tidecast/fit.parm", "resolutionw", "resolutionx"),
        "TOP:fit has no parameter resolutionx",
    ),
    "unknown menu word": (
        edit(f"{TREE}/Tidecast/telemetry.parm", "chanperrow", "rowperchan"),
        "no choice 'rowperchan'",
    ),
    "expression without text": (
        edit(f"{TREE}/Tidecast/osc_in.parm", "active 67108881", "active 67108864"),
        "announce 3 words, 4 stand there",
    ),
    "expression is not Python": (
        edit(f"{TREE}/Tidecast/osc_out.parm", "parent().par.Port.eval()", "parent().par.Port.eval("),
        "is not Python",
    ),
    "expression asks for an unknown parameter": (
        edit(f"{TREE}/Tidecast/osc_out.parm", "parent().par.Port.eval()", "parent().par.Portt.eval()"),
        "the component has no parameter Portt",
    ),
    "text is cut": (cut_text, "bytes of text"),
    "script is not Python": (break_script, "its script is not Python 3.11"),
    "CR line ends": (windows_line_ends, "has CR line ends"),
    "page count": (edit(f"{TREE}/Tidecast.cparm", "pages 13", "pages 14"), "the pages do not match their count"),
    "unknown page": (edit(f"{TREE}/Tidecast.cparm", "About 0", "Abouts 0"), "there is no page 'Abouts'"),
    "custom name": (edit(f"{TREE}/Tidecast.cparm", " Strength ", " strength "), "strength is not a capital letter"),
    "help is announced and missing": (
        edit(f"{TREE}/Tidecast.cparm", '1 "Panic: black. OSC: /tidecast/black"', ""),
        "the help of Black is announced and missing",
    ),
    "default outside its range": (
        edit(f"{TREE}/Tidecast.cparm", "3 1 1 3 4 4 2 2", "3 1 1 3 4 4 2 9"),
        "parameter Steps: its default 9 is outside",
    ),
    "quote is not closed": (edit(f"{TREE}/Tidecast.n", 'Engine."', "Engine."), "a quote is not closed"),
    "value of no parameter": (
        edit(f"{TREE}/Tidecast.parm", "Strength 67108928", "Strangth 67108928"),
        "Strangth is not a custom parameter",
    ),
    "no extension": (
        edit(f"{TREE}/Tidecast.parm", "op('./TidecastExt')", "op('./TidecastExi')"),
        "there is no class TidecastExt in a DAT TidecastExi",
    ),
    "callbacks name nothing": (
        edit(f"{TREE}/Tidecast/osc_in.parm", "osc_callbacks", "osc_callbackz"),
        "callbacks names osc_callbackz",
    ),
    "input without connector": (
        edit(f"{TREE}/Tidecast.network", "\tin1\n", "\tin2\n"),
        "in1: is not listed in Tidecast.network",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_checker_names_the_fault(case, tmp_path):
    shutil.copytree(HERE / TREE, tmp_path / TREE)
    shutil.copy(HERE / TOC, tmp_path)
    break_it, sentence = BROKEN[case]
    break_it(tmp_path)
    found = check.faults(tmp_path)
    assert any(sentence in line for line in found), found


def test_the_checker_is_a_command(tmp_path):
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "td_components.check", *args],
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )

    sound = run("td_components")
    assert sound.returncode == 0 and "sound" in sound.stdout
    empty = run(str(tmp_path))
    assert empty.returncode == 1 and "holds 0 folders" in empty.stdout
    assert run().returncode == 2
