"""The expanded component: every file is in TouchDesigner's text format."""

from __future__ import annotations

import struct

import pytest

from td_components.definition import pages
from td_components.definition.spec import HERE, Style
from td_components.output import expanded


def test_every_file_obeys_the_format():
    root = HERE / "Tidecast.tox.dir"
    listed = (HERE / "Tidecast.tox.toc").read_text().splitlines()
    assert listed[0] == "# 4 0 0 0 1"
    assert listed[1:6] == [".build", "Tidecast.n", "Tidecast.cparm", "Tidecast.parm", "Tidecast.network"]
    names = [p.split("/")[1].split(".")[0] for p in listed if p.startswith("Tidecast/")]
    assert names == sorted(names, key=lambda n: (len(n), n))
    for path in listed[1:]:
        data = (root / path).read_bytes()
        assert b"\r" not in data
        if path.endswith(".text"):
            assert data[:27] == b"2\n*" + struct.pack(">6I", 1, 1, 1, 1, 2, len(data) - 27)
            data[27:].decode("utf-8")
        else:
            assert data.endswith(b"\n")


@pytest.mark.parametrize(
    ("style", "number"),
    [
        (Style.STR, 772804868),
        (Style.FLOAT, 772804865),
        (Style.INT, 772804866),
        (Style.PULSE, 772804869),
        (Style.MENU, 772804879),
    ],
)
def test_the_words_of_parameters_are_those_seen_in_public_components(style, number):
    one = pages.Parameter("Name", "Label", "Page", style, 0, help="")
    assert expanded.word(one) & ~expanded.HELP == number
    assert expanded.word(one) & expanded.HELP


def test_a_parameter_line_is_written_as_documented():
    one = pages.Parameter("Denoise", "Denoising strength", "Stream", Style.FLOAT, 0.5, "Help.", low=0, high=1)
    line = expanded._cparm_line(one, 4)
    assert line == (f'{772804865 | 0x40000} Denoise "Denoising strength" 1 3 0 0 3 1 1 2 0.5 "" "" Stream 4 1 Help.')
