"""The expanded component reads back as what it was written from."""

from __future__ import annotations

from bridge.cli import td
from td_components.definition import graph, network
from td_components.definition.spec import HERE, Style
from td_components.output import expanded, grammar


def test_the_tree_reads_back_as_the_spec():
    table = td.table()
    spec = network.component(table, table["version"])
    tree = grammar.read(HERE).graph
    values = {p["name"]: p.pop("value", None) for p in tree["parameters"]}
    assert graph.differences(graph.of(spec), tree) == []
    for parameter in spec.parameters:
        if parameter.style is not Style.PULSE:
            assert values[parameter.name] == expanded.value_text(parameter)
