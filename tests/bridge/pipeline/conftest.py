"""What tests of whole bridges here share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from bridge.video.synthetic.null import NullSink
from engine.frame import Frame


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Frame]]:
    """The frames that the output has sent."""
    frames: list[Frame] = []

    def record(self: NullSink, frame: Frame, metadata: Mapping[str, str] | None = None) -> None:
        frames.append(frame)

    monkeypatch.setattr(NullSink, "send", record)
    yield frames
