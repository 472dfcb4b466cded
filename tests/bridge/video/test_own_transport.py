"""A transport is added with one module and one row: no file of the program names the one in this test."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from bridge.app import App
from bridge.bench.overhead import identity
from bridge.cli import doctor
from bridge.cli.doctor import diagnose
from bridge.cli.main import app as command
from bridge.config_file import load
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.table import TABLE
from bridge.video import table
from bridge.video.opening import list_sources
from bridge.web.guides import Names, guides
from bridge.web.launcher import WebProcess
from tests.support import toy_transport


@pytest.fixture(autouse=True)
def shelf() -> Iterator[None]:
    with toy_transport.registered():
        yield


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor does not load torch, which takes seconds each time."""
    monkeypatch.setattr(doctor, "_ask", lambda *_: {"error": "not asked here"})


def test_it_is_input_and_output_of_a_whole_program() -> None:
    settings = identity("shelf:100", "shelf:out", width=64, height=48)
    with App(load(None, settings)):
        until = time.monotonic() + 30.0
        while not any((frame.rgb() == 100).all() for frame in toy_transport.SHELVES.get("out", [])):
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.usefixtures("no_torch")
def test_lists_doctor_and_documents_know_it() -> None:
    assert "shelf:100" in [source.uri for source in list_sources()]
    assert "shelf:" in [finding.what for finding in diagnose(load(None, {}))]
    assert (
        "| `shelf:` | the grey of its pictures, 0 to 255 | what `input.allow` names | the shelf's name | in one test |"
        in table.markdown()
    )
    assert table.output_text("shelf:out") == "the shelf 'out'"
    assert "shelf:" in table.schemes() and "shelf:" in table.schemes(writes=True)
    listed = CliRunner().invoke(command, ["sources"])
    assert "shelf:100" in listed.output


def test_the_help_of_the_control_names_every_transport_of_tidecast() -> None:
    for row in table.rows():
        assert (f"{row.scheme}:" in TABLE.by_name["input"].help) == (row.reads != "" and row.scheme != "shelf")


def test_the_help_of_the_command_is_made_when_it_is_asked_for() -> None:
    def shown() -> str:
        return CliRunner(env={"COLUMNS": "300"}).invoke(command, ["run", "--help"]).output

    lines = [line for line in shown().splitlines() if "shelf:" in line]
    assert [word for line in lines for word in ("--input", "--output") if word in line] == ["--input", "--output"]
    assert "{" not in shown()
    table.unregister("shelf")
    assert "shelf:" not in shown() and "pattern:" in shown()
    table.register(toy_transport.ROW)


def test_the_page_shows_its_guides() -> None:
    told = guides(Names("DESK", ("shelf:out",), "127.0.0.1", 9000))
    assert told[0] == {"program": "Librarian", "steps": ("Look at the shelf out.",), "copy": ("out",)}
    silent = guides(Names("DESK", ("null:",), "127.0.0.1", 9000))
    assert "cannot see" in " ".join(silent[0]["steps"])


def test_the_page_names_it_where_a_source_is_typed() -> None:
    assert "shelf:" in WebProcess(ControlStore(TABLE), Telemetry(TABLE), 64, 48).about["inputs"]


@pytest.mark.usefixtures("no_torch")
def test_doctor_says_what_to_do_where_it_does_not_work() -> None:
    moon = dataclasses.replace(toy_transport.ROW, scheme="moon", platforms=("moon",), elsewhere="Fly there.")
    table.register(moon)
    try:
        for output, level in (("null:", "note"), ("moon:out", "bad")):
            found = {finding.what: finding for finding in diagnose(load(None, {"output.uri": output}))}
            assert (found["moon:"].level, found["moon:"].remedy) == (level, "Fly there.")
    finally:
        table.unregister("moon")


def test_a_row_is_refused_that_could_do_nothing_or_is_there_already() -> None:
    with pytest.raises(ValueError, match="already"):
        table.register(toy_transport.ROW)
    with pytest.raises(ValueError, match="neither"):
        table.register(table.Transport("empty", "nowhere", "nothing"))
    with pytest.raises(ValueError, match="no transport"):
        table.unregister("empty")
