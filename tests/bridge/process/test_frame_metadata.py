"""The metadata of the frames that leave the engine process: what they name, and that they always fit the ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.ipc.frame_ring import FrameRing
from bridge.ipc.metadata import cut, decoded, encoded, fitted
from bridge.process.heartbeat import Heartbeat
from bridge.process.identity_session import IdentitySession
from bridge.process.loop import Loop
from bridge.process.messages import Start
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=900)
"""Text of any characters, unpaired surrogates included."""


class Parent:
    """Sets the controls, and stops the loop when a number of frames is finished."""

    def __init__(self, controls: Controls, heartbeat: Heartbeat, frames: int) -> None:
        self.controls = controls
        self._heartbeat, self._frames = heartbeat, frames

    @property
    def stopped(self) -> bool:
        return self._heartbeat.finished >= self._frames

    def tell(self, message: object) -> None:
        pass


def through_the_loop(
    prompt: str, own: Mapping[str, str] | None = None, metadata_bytes: int = 4096
) -> Mapping[str, str]:
    """The metadata with which a frame leaves the engine process through a ring of this size."""
    controls, heartbeat = Controls(prompt_1=prompt, strength=0.7, steps=2), Heartbeat()
    start = Start(Config(), True, False, 0.0, controls)
    parent = cast(Any, Parent(controls, heartbeat, frames=1))
    with FrameRing(32, 16, metadata_bytes=9000) as there, FrameRing(32, 16, metadata_bytes=metadata_bytes) as back:
        there.writer().put(Frame(np.zeros((16, 32, 3), np.uint8), captured_ns=1, metadata=own or {}))
        Loop(start, IdentitySession(), there.reader(), back.writer(), parent, heartbeat).serve()
        got = back.reader().get()
    assert got is not None
    return got.metadata


@pytest.mark.parametrize("character", ["\U0001f600", "\ud83d", "\0", '"', "\\", "é", "x"])
@pytest.mark.parametrize("metadata_bytes", [0, 64, 4096])
def test_no_prompt_is_too_long_for_the_ring(character: str, metadata_bytes: int) -> None:
    text = character * 5000
    came = through_the_loop(text, {"ndi": "a note"}, metadata_bytes)
    assert text.startswith(came.get("prompt", ""))
    if metadata_bytes == 4096:
        assert (came["strength"], came["steps"], came["ndi"]) == ("0.7", "2", "a note")
        assert 2048 - 12 < len(encoded({"": came["prompt"]})) - len(encoded({"": ""})) <= 2048


def test_metadata_of_the_frame_itself_comes_last_and_is_left_out_whole_where_it_does_not_fit() -> None:
    own = {"ndi": "n" * 3000, "note": "short", "steps": "99"}
    came = through_the_loop("p" * 1500, own)
    assert came == {"strength": "0.7", "steps": "2", "prompt": "p" * 1500, "note": "short"}
    assert through_the_loop("short", own)["ndi"] == own["ndi"]


@given(ANY_TEXT, st.integers(0, 3000))
def test_a_text_is_cut_to_as_many_bytes_as_there_are(text: str, limit: int) -> None:
    def needed(part: str) -> int:
        return len(encoded({"": part})) - len(encoded({"": ""}))

    kept = cut(text, limit)
    assert text.startswith(kept) and needed(kept) <= limit
    assert kept == text or needed(text[: len(kept) + 1]) > limit


@given(st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=5), st.integers(0, 5000))
def test_strings_that_fit_a_ring_are_kept_in_order(strings: dict[str, str], limit: int) -> None:
    kept = fitted(strings, limit)
    assert len(encoded(kept)) <= limit
    assert list(kept) == [key for key in strings if key in kept]
    assert kept.items() <= strings.items()
    assert fitted(strings, len(encoded(strings))) == strings
    assert encoded(decoded(encoded(kept))) == encoded(kept)
