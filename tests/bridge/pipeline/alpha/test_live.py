"""Transparency in the whole bridge: in over real NDI from another binding, out over real NDI to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bridge.app import App
from bridge.bench.overhead import identity, wait_until_running
from bridge.config_file import load
from engine.frame import Frame
from tests.bridge.pipeline.mask.test_live import soon
from tests.support.video_peers import Peer, mix_with_cyndilib, serve_with_cyndilib

WIDTH, HEIGHT = 256, 144
MARK = f"Tidecast test alpha {os.getpid()}"
DARK, BRIGHT = (60, 90, 40), (210, 180, 220)
LOSS = 8


def halves(path: Path) -> None:
    """Dark on the left, bright on the right."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :] = DARK, BRIGHT
    Image.fromarray(pixels).save(path)


def test_the_picture_is_cut_out_for_another_binding_in_both_modes_and_panic_is_opaque(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    halves(tmp_path / "halves.png")
    settings = identity(f"file:{tmp_path / 'halves.png'}", f"ndi:{MARK}", WIDTH, HEIGHT) | {
        "output.also": ("window:9",),  # cannot be opened here, and cannot send transparency anywhere
        "osc.enabled": False,
        "process.debug": True,
        "controls.mask_source": "luma",
        "controls.mask_luma_low": 0.5,
        "controls.mask_use": "alpha",
    }
    with App(load(None, settings)) as app, Peer(mix_with_cyndilib, MARK, str(tmp_path)) as peer:
        reading = lambda name: app.telemetry.snapshot().get(name)  # noqa: E731
        wait_until_running(app)

        def arrives(left: tuple[int, ...], right: tuple[int, ...], what: str) -> None:
            seen: list[Any] = []

            def here() -> bool:
                peer.conn.send(("picture",))
                picture = peer.answer()
                if picture is None or picture.shape != (HEIGHT, WIDTH, 4):
                    return False
                halves = picture[20:-20, 20 : WIDTH // 2 - 20], picture[20:-20, WIDTH // 2 + 20 : -20]
                seen[:] = [half.reshape(-1, 4).astype(int) for half in halves]
                return all(
                    np.abs(half - wanted).max() <= LOSS for half, wanted in zip(seen, (left, right), strict=True)
                )

            soon(here, f"{what}; the last was {[half.mean(0).round() for half in seen]}")

        arrives((*DARK, 255), (*BRIGHT, 255), "without output alpha the whole picture is opaque")
        soon(lambda: reading("alpha_state") == "left out", "and this is said")
        soon(lambda: "/tidecast/output/alpha: The picture is cut out" in caplog.text, "beside the control too")
        app.store.set("output_alpha", "straight")
        arrives((*DARK, 0), (*BRIGHT, 255), "the whole picture, and its alpha")
        soon(lambda: reading("alpha_state") == "straight" and reading("alpha_unable") == "window:9", "who cannot")
        app.store.set("output_alpha", "premultiplied")
        arrives((0, 0, 0, 0), (*BRIGHT, 255), "what is transparent is black")
        app.store.set("bypass", True)
        arrives((*DARK, 255), (*BRIGHT, 255), "bypass is the input, untouched by the mask")
        app.store.set("black", True)
        arrives((0, 0, 0, 255), (0, 0, 0, 255), "black is opaque")
        app.store.set_many({"black": False, "bypass": False, "mask_source": "person"})
        app.supervisor.inject("mask")
        soon(lambda: reading("mask_state") == "missing", "there is no mask")
        arrives((*DARK, 255), (*BRIGHT, 255), "without a mask the whole picture is shown")


def test_the_alpha_of_an_input_over_ndi_is_kept_through_bypass_and_mix(tmp_path: Path, sent: list[Frame]) -> None:
    colour = (200, 100, 50, 90)
    name = f"{MARK} cam"
    settings = identity(f"ndi:{name}", "null:", 320, 192) | {"osc.enabled": False, "controls.output_alpha": "straight"}
    with Peer(serve_with_cyndilib, name, str(tmp_path), colour), App(load(None, settings)) as app:

        def leaves(alpha: int, what: str) -> None:
            def here() -> bool:
                frame = sent[-1] if sent else None
                del sent[:-1]
                if frame is None or frame.alpha is None or not frame.captured_ns:
                    return False
                near = np.abs(frame.alpha.astype(int) - alpha).max() <= 2
                return bool(near and np.abs(frame.pixels[90, 150].astype(int) - colour[:3]).max() <= 24)

            soon(here, what)

        leaves(90, "the input, before there is an engine, or restyled")
        wait_until_running(app)
        leaves(90, "restyled")
        app.store.set("mix", 0.5)
        leaves(90, "half of both")
        app.store.set("bypass", True)
        leaves(90, "bypassed")
        app.store.set_many({"bypass": False, "mix": 1.0, "input_alpha": "off"})
        leaves(255, "what is not taken for alpha")
