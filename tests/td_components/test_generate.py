"""What is generated and committed is up to date, and a changed table of controls makes it stale."""

from __future__ import annotations

from bridge.cli import td
from td_components import generate


def test_everything_generated_is_up_to_date():
    assert generate.stale(td.table()) == [], "run: tidecast td generate"


def test_a_changed_table_makes_it_stale():
    table = td.table()
    table["controls"][0]["help"] += " More."
    assert {"Tidecast.tox.dir/Tidecast.cparm", "build_in_td.py", "controls.json"} <= set(generate.stale(table))
