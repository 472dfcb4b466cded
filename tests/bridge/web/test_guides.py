"""The guides that the page shows: OSC addresses that other programs can reach."""

from __future__ import annotations

import json

import pytest

from bridge.web.guides import Names, guides


@pytest.mark.parametrize(
    ("host", "port", "said", "copied"),
    [
        ("127.0.0.1", 9000, "-c network", "127.0.0.1:9000"),
        ("0.0.0.0", 9001, "or its IP address, port 9001", "DESK:9001"),
        ("10.0.0.7", 9002, "to 10.0.0.7, port 9002", "10.0.0.7:9002"),
        ("", 0, "osc.enabled is false", None),
    ],
)
def test_the_osc_guide_names_an_address_that_can_be_reached(host: str, port: int, said: str, copied: str) -> None:
    guide = guides(Names("DESK", ("ndi:Tidecast",), host, port))[-1]
    assert guide["program"] == "OSC" and said in " ".join(guide["steps"])
    assert next(iter(guide["copy"]), None) == copied
    assert "0.0.0.0" not in json.dumps(guide)
