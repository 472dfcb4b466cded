"""Nothing that a stranger names or sends can steer the operator's terminal or write lines into the log."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from bridge.cli import main
from bridge.cli.status import styled
from bridge.cli.terminal import PrintableConsole, cell
from bridge.printable import PrintableFormatter, one_line, printable
from bridge.video import opening
from bridge.video.base import SourceInfo

ATTACK = "\x1b]0;title\x07\x1b[2J\x1b[31m red \x9b5A \r over \x00\x08 \u202e drow"
"""Changes the title, clears the screen, colours, moves the cursor (two ways), overwrites the line, turns the text."""

UNSEEN = set("\x1b\x07\x9b\r\x00\x08\u202e")


def test_what_steers_a_terminal_is_shown_instead() -> None:
    assert printable("a\x1b[2Jb\tc\nd") == "a\\x1b[2Jb\tc\nd"
    assert one_line("a\nb\tc\x9b") == "a\\nb\\tc\\x9b"
    assert printable("Grüße, 森 👩‍👩‍👧, שלום") == "Grüße, 森 👩‍👩‍👧, שלום"
    assert not UNSEEN & set(printable(ATTACK))


@given(st.text())
def test_one_line_is_one_line_and_nothing_changes_twice(text: str) -> None:
    once = one_line(text)
    assert len(once.splitlines()) <= 1
    assert one_line(once) == once


def logged(text: str) -> list[str]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("%s: no such address", text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logger.exception("failed")
    return stream.getvalue().split("\n")


def test_a_log_line_is_one_line() -> None:
    lines = logged("x\nWARNING the house is on fire" + ATTACK)
    assert lines[0].startswith("WARNING x\\nWARNING the house")
    assert lines[1:3] == ["ERROR failed", "Traceback (most recent call last):"]
    assert not UNSEEN & set("".join(lines))


@pytest.mark.parametrize("live", [False, True])
def test_the_program_logs_that_way(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = logging.getLogger().handlers[:]
    stream = io.StringIO()
    console = PrintableConsole(file=stream, force_terminal=True, width=200)
    monkeypatch.setattr(main, "out", console)
    try:
        main.start_logging(live)
        (handler,) = logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(stream)
        logging.getLogger("bridge").warning("%s", "y\nz" + ATTACK)
    finally:
        logging.basicConfig(handlers=before, force=True)
    assert "y\\nz" in stream.getvalue()
    assert "\x1b]" not in stream.getvalue() and "\x1b[2J" not in stream.getvalue() and "\x9b" not in stream.getvalue()


def test_the_console_writes_its_own_colours_and_nobody_elses() -> None:
    stream = io.StringIO()
    console = PrintableConsole(file=stream, force_terminal=True, color_system="truecolor", width=300)
    table = Table("name")
    table.add_row(cell(ATTACK + "\nsecond line [/nothing] [red]"))
    console.print(table)
    console.print(ATTACK, style="red", markup=False, soft_wrap=True)
    console.print(Text(ATTACK))
    with Live(console=console, auto_refresh=False) as live:
        live.update(styled({"state": "running", "prompt": "a\nb" + ATTACK, "message": ATTACK}), refresh=True)
    written = stream.getvalue()
    assert "\x1b[31m" in written, "the style asked for"
    assert not {"\x07", "\x9b", "\x00", "\x08", "\u202e"} & set(written)
    assert "\x1b]" not in written and "\x1b[2J" not in written
    assert "a\\nb" in written and "[/nothing] [red]" in written


def test_a_source_on_the_network_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markup in brackets ended `tidecast sources` with a traceback."""
    found = [SourceInfo("ndi:[/evil] (" + ATTACK + ")", "[/evil]\n" + ATTACK, 0, 0, 0.0)]
    monkeypatch.setattr(opening, "list_sources", lambda **_: found)
    done = CliRunner().invoke(main.app, ["sources"])
    assert done.exit_code == 0, done.output
    assert "[/evil]" in done.output
    assert not UNSEEN & set(done.output)
