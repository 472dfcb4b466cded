"""The generated drawings: sound SVG, each shown by a guide."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from bridge.cli import td
from td_components.definition import network
from td_components.definition.spec import HERE
from td_components.output import diagrams


def test_every_picture_is_sound_svg_with_a_title_and_is_used():
    table = td.table()
    drawn = diagrams.pictures(table, network.component(table, table["version"]))
    shown = "".join(p.read_text() for p in [*(HERE / "docs").glob("*.md"), HERE / "README.md"])
    for name, data in drawn.items():
        root = ET.fromstring(data)
        assert root.find("{http://www.w3.org/2000/svg}title").text
        assert len(data) < 80_000 and name in shown, name
