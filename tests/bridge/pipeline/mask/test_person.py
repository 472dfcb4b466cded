"""Input frames on their way to the engine process, and their masks on the way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from bridge.control.store import ControlStore
from bridge.pipeline.frame_history import FrameHistory
from bridge.pipeline.mask.person import FED_NS, MISSING_NS, PersonMasks
from bridge.pipeline.mask.region import Region
from bridge.process.engine.mask_rings import MASK_SIZE, OUTBOX_DEPTH, MaskRings, packed, unpacked
from bridge.table import TABLE
from engine.frame import Frame

PERIOD = 33_000_000
VALUES = np.arange(144 * 256, dtype=np.uint32).reshape(144, 256).astype(np.uint8)


def answer(rings: MaskRings, values: np.ndarray) -> Frame | None:
    """Mask the newest frame, as the engine process does."""
    with rings.ends() as ends:
        frame = ends.inbox.get(0.0, newest=True)
        if frame is not None:
            ends.outbox.put(dataclasses.replace(frame, pixels=packed(values)))
        return frame


@pytest.fixture
def rings() -> Iterator[MaskRings]:
    made = MaskRings()
    yield made
    made.close()


def masks(rings: MaskRings, told: list[tuple[str, str]]) -> tuple[PersonMasks, ControlStore, FrameHistory]:
    store, history = ControlStore(TABLE), FrameHistory()
    return PersonMasks(rings, history, store, lambda topic, text: told.append((topic, text))), store, history


def small(number: int, width: int = 512, height: int = 288) -> Frame:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 200
    return Frame(pixels, captured_ns=number * PERIOD, seq=number)


def test_a_mask_survives_the_ring_to_the_byte() -> None:
    assert (unpacked(Frame(packed(VALUES))) == VALUES).all()


def test_frames_are_sent_only_while_a_person_mask_is_wanted(rings: MaskRings) -> None:
    made, store, _ = masks(rings, [])
    made.feed(small(1))
    store.set_many({"mask_source": "person"})
    made.feed(small(2))
    store.set_many({"mask_source": "luma", "mask_use": "inside"})
    made.feed(small(3))
    assert answer(rings, VALUES) is None
    store.set("mask_source", "person-luma")
    made.feed(small(4))
    got = answer(rings, VALUES)
    assert got is not None and (got.width, got.height) == MASK_SIZE and got.seq == 4


def test_masks_come_back_with_their_time_and_region(rings: MaskRings) -> None:
    made, store, history = masks(rings, [])
    store.set_many({"mask_source": "person", "mask_use": "inside", "mask_left": 0.5, "mask_smooth": 0.0})
    made.feed(small(7))
    store.set("mask_left", 0.0)
    got = answer(rings, VALUES)
    assert got is not None and (got.pixels > 190).all(), "the region alone is looked at"
    made.collect(True, 8 * PERIOD)
    found = history.masks.at(7 * PERIOD)
    assert found is not None and found.captured_ns == 7 * PERIOD and found.region == Region(0.5, 0.0, 1.0, 1.0)
    assert (found.values == VALUES).all()


def test_a_ring_that_nobody_reads_holds_the_newest_and_waits_for_nobody(rings: MaskRings) -> None:
    made, store, _ = masks(rings, [])
    store.set_many({"mask_source": "person", "mask_use": "inside"})
    for number in range(1, 50):
        made.feed(small(number))
    got = answer(rings, VALUES)
    assert got is not None and got.seq == 49
    with rings.ends() as ends:
        for number in range(50, 90):
            ends.outbox.put(Frame(packed(VALUES), captured_ns=number * PERIOD, metadata=got.metadata))
    assert len(rings.take()) <= OUTBOX_DEPTH
    rings.close()
    made.feed(small(50))
    assert rings.take() == [], "after the end nothing is taken and nothing fails"


def test_a_mask_that_does_not_come_is_said_once(rings: MaskRings) -> None:
    told: list[tuple[str, str]] = []
    made, store, _ = masks(rings, told)
    store.set_many({"mask_source": "person", "mask_use": "inside"})
    began, now = 1_000_000_000_000, 1_000_000_000_000
    while now - began < 3 * MISSING_NS:
        made.feed(Frame(small(1).pixels, captured_ns=now))
        made.collect(True, now)
        now += 400_000_000
    assert [topic for topic, _ in told] == ["mask"] and "whole picture is restyled" in told[0][1]
    answer(rings, VALUES)
    made.collect(True, now)
    while now - began < 6 * MISSING_NS:
        made.feed(Frame(small(1).pixels, captured_ns=now))
        made.collect(True, now)
        now += 400_000_000
    assert len(told) == 2, "after one has come, the next silence is said again"


@pytest.mark.parametrize(("running", "wanted", "fed"), [(False, True, True), (True, False, True), (True, True, False)])
def test_nothing_is_said_while_no_mask_can_come(rings: MaskRings, running: bool, wanted: bool, fed: bool) -> None:
    told: list[tuple[str, str]] = []
    made, store, _ = masks(rings, told)
    store.set_many({"mask_source": "person" if wanted else "luma", "mask_use": "inside"})
    now = 1_000_000_000_000
    made.feed(Frame(small(1).pixels, captured_ns=now))
    for _ in range(40):
        if fed:
            made.feed(Frame(small(1).pixels, captured_ns=now))
        now += FED_NS // 2
        made.collect(running, now)
    assert told == []
