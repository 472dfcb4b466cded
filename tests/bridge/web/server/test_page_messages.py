"""Messages from a page: parsed, or refused with an example of one that is understood."""

from __future__ import annotations

import pytest

from bridge.web.server.page_messages import PageAsks, PageDrew, PageSays, PageWatches, parse_control, parse_preview
from engine.errors import ControlError


def test_messages_of_a_page_are_parsed_or_refused():
    assert parse_control({"address": "/tidecast/mix", "args": [0.5]}) == PageSays("/tidecast/mix", (0.5,))
    assert parse_control({"ask": "inputs"}) == PageAsks()
    assert parse_preview({"watch": ["output"]}) == PageWatches(("output",))
    assert parse_preview("drawn") == PageDrew()
    for garbage in (None, 1, [], {"address": 1}, {"address": "/x", "args": [None]}, {"address": "/x", "args": [1] * 9}):
        with pytest.raises(ControlError, match="not understood"):
            parse_control(garbage)
        with pytest.raises(ControlError, match="not understood"):
            parse_preview(garbage)
