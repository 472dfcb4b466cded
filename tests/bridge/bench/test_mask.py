"""The figures of `bench mask` hold: masks of photographs and of a film whose true masks are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bridge.bench.mask import Play, edge_error, flicker, iou, moving, still
from bridge.bench.photographs import film, photographs
from engine.models.selfie.masker import Masker

SIZE = (384, 216)


@pytest.fixture(scope="module")
def masker() -> Masker:
    return Masker()


def test_people_on_photographs_are_found(masker: Masker) -> None:
    for photograph in photographs():
        row = still(photograph, masker.mask)
        assert row["iou"] > 0.9, row
        assert row["edge_px"] < 8.0, row


def test_edges_do_not_lag_behind_a_person_who_moves(masker: Masker) -> None:
    held, moved = (moving(SIZE, 26, 3, choice, masker.mask) for choice in (False, True))
    now = moving(SIZE, 26, 0, True, masker.mask)
    assert now["iou"] > 0.9, now
    assert moved["iou"] > held["iou"] and moved["edge_px"] < 0.7 * held["edge_px"], (held, moved)


def test_smoothing_makes_a_still_picture_calmer(masker: Masker) -> None:
    assert flicker(SIZE, 0.9, masker.mask)["flicker"] < 0.92 * flicker(SIZE, 0.0, masker.mask)["flicker"]


def test_the_region_of_interest_finds_a_person_who_is_small(masker: Masker) -> None:
    """She is a quarter as wide in the whole picture; the region brings her back to the size that the network knows."""
    pixels, truth = next(film(*SIZE, 1))
    wide = np.full((SIZE[1] * 3, SIZE[0] * 3, 3), (70, 60, 90), np.uint8)
    true = np.zeros(wide.shape[:2], np.uint8)
    wide[2 * SIZE[1] :, : SIZE[0]], true[2 * SIZE[1] :, : SIZE[0]] = pixels, truth
    wide, true = (cv2.resize(one, SIZE, interpolation=cv2.INTER_AREA) for one in (wide, true))
    region = {"mask_right": 1 / 3, "mask_top": 2 / 3}
    everywhere = true >= 0
    near = Play(*SIZE, masker.mask, mask_source="person", **region)
    matte = near.show(np.ascontiguousarray(wide))
    assert iou(matte, true, everywhere) > 0.75 and edge_error(matte, true, everywhere) < 6.0
