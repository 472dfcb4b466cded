"""The operators of the component: every type is one whose source is named, and every script is plain Python."""

from __future__ import annotations

import ast
import json
import sys

from bridge.cli import td
from td_components.definition import network
from td_components.definition.spec import HERE, load_names


def test_the_allow_list_names_its_sources():
    table = json.loads((HERE / "names.json").read_text())
    assert {"public", "manual"} <= table["source"].keys()
    for row in table["operators"].values():
        assert row["public"] or row["manual"]
    controls = td.table()
    nodes = network.component(controls, controls["version"]).nodes
    used = {n.type for n in nodes} | {"COMP:base"}
    assert used == set(load_names().classes), "operators in names.json that nothing uses, or the reverse"


def test_the_scripts_are_plain_python_311_without_packages():
    for path in network.SCRIPTS.glob("*.py"):
        module = ast.parse(path.read_text(), feature_version=(3, 11))
        for item in ast.walk(module):
            names = [a.name for a in item.names] if isinstance(item, ast.Import) else []
            if isinstance(item, ast.ImportFrom):
                names = [item.module]
            assert all(name in sys.stdlib_module_names for name in names), path.name
