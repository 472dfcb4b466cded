"""The parameter pages: one parameter for every control, command and reading of the table."""

from __future__ import annotations

from bridge.cli import td
from bridge.table import TABLE
from td_components.definition import network, pages
from td_components.definition.spec import Style
from td_components.output import grammar


def component() -> network.Component:
    table = td.table()
    return network.component(table, table["version"])


def test_every_control_command_and_reading_has_its_parameter():
    by_name = {p.name: p for p in component().parameters}
    for control in TABLE.controls:
        parameter = by_name[pages.control_name(control.name)]
        assert f"/tidecast{control.address}" in parameter.help and control.help in parameter.help
        if control.numeric:
            assert (parameter.low, parameter.high) == (control.low, control.high)
        assert not parameter.read_only
    for command in TABLE.commands:
        shown = pages.LINK_COMMANDS.get(command.name, pages.control_name(command.name))
        assert (command.name in pages.HIDDEN_COMMANDS) != (shown in by_name and by_name[shown].style is Style.PULSE)
    for reading in TABLE.readings:
        assert by_name[pages.reading_name(reading.name)].read_only


def test_names_fit_and_every_parameter_has_help():
    parameters = component().parameters
    assert {p.page for p in parameters} == set(pages.PAGES)
    assert len({p.name for p in parameters}) == len(parameters)
    for parameter in parameters:
        assert grammar.CUSTOM_NAME.match(parameter.name), parameter.name
        assert len(parameter.help) > 10 and parameter.help[0].isupper(), parameter.name


def test_pages_and_commands_of_the_table_are_told_apart():
    shown = {*pages.LINK_COMMANDS}
    assert not shown & pages.HIDDEN_COMMANDS.keys()
