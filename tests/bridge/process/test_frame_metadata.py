"""The metadata of the frames that leave the engine process: what they name, and that they always fit the ring."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.ipc.frame_ring import FrameRing
from bridge.ipc.metadata import cut, decoded, encoded, fitted
from bridge.ipc.ring_ends import RingWriter
from bridge.process.engine_session import EngineSession
from bridge.process.heartbeat import Heartbeat
from bridge.process.identity_session import IdentitySession
from bridge.process.loop import Loop
from bridge.process.messages import Start
from engine.config import Config
from engine.controls import Controls
from engine.frame import Frame
from engine.session import Session

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=900)
"""Text of any characters, unpaired surrogates included."""


class Parent:
    """In every turn of the loop, sends the frames of one chunk and sets the controls for it; stops after the last."""

    def __init__(
        self,
        session: EngineSession,
        writer: RingWriter,
        chunks: Sequence[Controls],
        before: Callable[[int], None],
        own: Mapping[str, str],
    ) -> None:
        self.controls = chunks[0]
        self.chunk_of: list[int] = []
        self._session, self._writer, self._chunks = session, writer, deque(chunks)
        self._before, self._own = before, own

    @property
    def stopped(self) -> bool:
        if not self._chunks:
            return True
        number = self.chunk_of[-1] + 1 if self.chunk_of else 0
        self._before(number)
        self.controls = self._chunks.popleft()
        for _ in range(self._session.frames_needed):
            seq = len(self.chunk_of)
            pixels = np.full((32, 32, 3), seq, np.uint8)
            self._writer.put(Frame(pixels, pts_ns=seq * 40_000_000, captured_ns=seq, seq=seq, metadata=self._own))
            self.chunk_of.append(number)
        return False

    def tell(self, message: object) -> None:
        pass


def served(
    session: EngineSession,
    chunks: Sequence[Controls],
    *,
    before: Callable[[int], None] = lambda chunk: None,
    own: Mapping[str, str] | None = None,
    metadata_bytes: int = 4096,
) -> list[tuple[int, Mapping[str, str]]]:
    """For each frame that leaves the engine process: the number of its chunk, and its metadata.

    Args:
        session: what the loop runs on.
        chunks: the controls in force when each chunk is begun.
        before: called with the number of each chunk before that.
        own: metadata with which the frames come.
        metadata_bytes: size of the ring through which they leave.
    """
    start = Start(Config(), False, False, 0.0, chunks[0])
    with (
        FrameRing(32, 32, depth=64, metadata_bytes=9000) as there,
        FrameRing(32, 32, depth=64, metadata_bytes=metadata_bytes) as back,
    ):
        parent = Parent(session, there.writer(), chunks, before, own or {})
        Loop(start, session, there.reader(), back.writer(), cast(Any, parent), Heartbeat()).serve()
        reader = back.reader()
        frames = [reader.get() for _ in range(reader.pending)]
    assert frames
    return [(parent.chunk_of[frame.seq], frame.metadata) for frame in frames if frame is not None]


class Prompted(IdentitySession):
    """A session that plays prompt 1."""

    def begin(self, controls: Controls) -> None:
        super().begin(controls)
        self._begun.append(dataclasses.replace(self._begun.pop(), prompt=controls.prompt_1))


def returned(prompt: str, own: Mapping[str, str], metadata_bytes: int = 4096) -> Mapping[str, str]:
    """The metadata of a frame that is made with this prompt and came with metadata of its own."""
    controls = Controls(prompt_1=prompt, strength=0.7, steps=2, slo_auto=False)
    [(_, metadata)] = served(Prompted(), [controls], own=own, metadata_bytes=metadata_bytes)
    return metadata


@pytest.mark.parametrize("character", ["\U0001f600", "\ud83d", "\0", '"', "\\", "é", "x"])
@pytest.mark.parametrize("metadata_bytes", [0, 64, 4096])
def test_no_prompt_is_too_long_for_the_ring(character: str, metadata_bytes: int) -> None:
    text = character * 5000
    came = returned(text, {"ndi": "a note"}, metadata_bytes)
    assert text.startswith(came.get("prompt", ""))
    if metadata_bytes == 4096:
        assert (came["strength"], came["steps"], came["ndi"]) == ("0.7", "2", "a note")
        assert 2048 - 12 < len(encoded({"": came["prompt"]})) - len(encoded({"": ""})) <= 2048


def test_metadata_of_the_frame_itself_comes_last_and_is_left_out_whole_where_it_does_not_fit() -> None:
    own = {"ndi": "n" * 3000, "note": "short", "steps": "99"}
    came = returned("p" * 1500, own)
    assert came == {"strength": "0.7", "steps": "2", "prompt": "p" * 1500, "note": "short"}
    assert returned("short", own)["ndi"] == own["ndi"]


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


CONFIG = Config(model="wan21-tiny", width=32, height=32, device="cpu")
FOREST = Controls(prompt_1="a forest", prompt_2="the sea", strength=0.8, steps=1, slo_auto=False)


@pytest.fixture
def session() -> Iterator[Session]:
    with Session.open(CONFIG, defer_prompts=True) as opened:
        yield opened


def test_a_frame_names_the_prompt_that_is_played_with_its_share(session: Session) -> None:
    blend = dataclasses.replace(FOREST, weight_1=0.25, weight_2=0.75)
    sea = dataclasses.replace(FOREST, weight_1=0.0, weight_2=1.0)
    for text in ("a forest", "the sea"):
        session.encode_prompt(text)
    named = ["the sea", "25% a forest + 75% the sea", "a forest"]
    for chunk, metadata in served(session, [sea, blend, FOREST]):
        assert metadata == {"strength": "0.8", "steps": "1", "prompt": named[chunk]}


def test_while_a_prompt_is_encoded_the_frames_name_the_one_that_is_still_played(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    sea, encode, finished = dataclasses.replace(FOREST, prompt_1="the sea"), session.encode_prompt, threading.Event()
    monkeypatch.setattr(session, "encode_prompt", lambda text: finished.wait() and encode(text))

    def before(chunk: int) -> None:
        if chunk == 3:
            encode("the sea")

    seen = served(session, [FOREST, sea, sea, sea, sea], before=before)
    finished.set()
    named = ["a forest", "a forest", "a forest", "the sea", "the sea"]
    assert [metadata["prompt"] for _, metadata in seen] == [named[chunk] for chunk, _ in seen]
    assert {chunk for chunk, _ in seen} == set(range(5))


def test_in_the_stream_batch_frames_name_what_their_own_chunk_was_begun_with(session: Session) -> None:
    texts = ["a forest", "the sea", "a desert", "snow", "rain"]
    for text in texts:
        session.encode_prompt(text)
    chunks = [
        dataclasses.replace(FOREST, prompt_1=text, strength=0.5 + n / 10, steps=2 if n < 4 else 1)
        for n, text in enumerate(texts)
    ]
    seen = served(session, chunks)
    assert session.spec.frames_per_latent > 1 and session.config.batch
    for chunk, metadata in seen:
        controls = chunks[chunk]
        assert metadata == {
            "strength": f"{controls.strength:g}",
            "steps": str(controls.steps),
            "prompt": texts[chunk],
        }
    assert {chunk for chunk, _ in seen} == set(range(5))


def test_an_identity_chunk_has_no_prompt() -> None:
    [(_, metadata)] = served(IdentitySession(), [FOREST])
    assert metadata == {"strength": "0.8", "steps": "1", "prompt": ""}
