"""Reads a folder of reference vectors and holds results against them, within the limits that its README states."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from engine.models.spec import CacheShape, ModelSpec, Schedule
from engine.models.wan21.vae import WanCodec, WanVAE
from engine.models.wan21.vae_shape import VAEShape
from engine.network.dit import CausalDiT
from engine.network.dit_shape import DiTShape

LIMITS = {
    "latent": (1e-4, 1e-5),
    "frames": (5e-5, None),
    "mu": (2e-5, None),
    "noise_scale": (1e-7, None),
    "motion": (1e-6, None),
    "exact": (0.0, None),
}
"""Largest and mean difference that each kind of result may have."""


class GoldenSet:
    """One folder: its configuration, weights and cases. Sizes are read, never assumed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())

    def case(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Arrays of a case, and its `meta`."""
        path = self.folder / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
        return load_file(path), meta

    @functools.cached_property
    def shape(self) -> DiTShape:
        dit = self.config["dit"]
        return DiTShape(
            dim=dit["dim"],
            heads=dit["num_heads"],
            layers=dit["num_layers"],
            ffn=dit["ffn_dim"],
            latent_channels=dit["in_dim"],
            patch=tuple(dit["patch_size"]),
            text_dim=dit["text_dim"],
            text_len=dit["text_len"],
            freq_dim=dit["freq_dim"],
            eps=dit["eps"],
        )

    @functools.cached_property
    def dit(self) -> CausalDiT:
        with torch.device("meta"):
            dit = CausalDiT(self.shape)
        state = load_file(self.folder / "dit.safetensors")
        state = {key.removeprefix("model."): value.float() for key, value in state.items()}
        dit.load_state_dict(state, strict=True, assign=True)
        return dit.eval().requires_grad_(False)

    @functools.cached_property
    def prompts(self) -> dict[str, Tensor]:
        return load_file(self.folder / "prompts.safetensors")

    @functools.cached_property
    def pixels_3THW(self) -> Tensor:
        video = np.load(self.folder / "video.npz")["video"]
        return torch.from_numpy(video).permute(3, 0, 1, 2).float() / 127.5 - 1

    def codec(self) -> WanCodec:
        vae = self.config["vae"]
        network = WanVAE(
            VAEShape(
                base=vae["dim"],
                latent=vae["z_dim"],
                multipliers=tuple(vae["dim_mult"]),
                blocks=vae["num_res_blocks"],
                temporal=tuple(vae["temperal_downsample"]),
                mean=tuple(self.config["vae_mean"]),
                std=tuple(self.config["vae_std"]),
            )
        )
        state = {key: value.float() for key, value in load_file(self.folder / "vae.safetensors").items()}
        network.load_state_dict(state, strict=True, assign=True)
        return WanCodec(network)

    def spec(self, slots: int, sinks: int, threshold: float, wrap_at: int | None) -> ModelSpec:
        """A row of the model table for this folder; a threshold below -0.5 means fixed sinks."""
        return ModelSpec(
            name="golden",
            family="wan21",
            title="reference vectors",
            network=self.shape,
            cache=CacheShape(slots, sinks, threshold if threshold > -0.5 else None, wrap_at or 10**9),
            schedule=Schedule(
                steps=tuple(t for t in self.config["denoising_step_list"] if t),
                shift=self.config["scheduler"]["shift"],
                strength=self.config["noise_scale"],
            ),
        )


class Replay:
    """A noise source that returns the recorded noise in order."""

    def __init__(self) -> None:
        self.next: list[Tensor] = []

    def draw(self, step: int, count: int, frames: int) -> Tensor:
        noise_NFCHW = self.next.pop(0)[:count]
        assert noise_NFCHW.shape[:2] == (count, frames)
        return noise_NFCHW.transpose(1, 2)


class Report:
    """Collects differences and reports the largest in one line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.worst = (0.0, "nothing compared")
        self.largest = 0.0
        self.failures: list[str] = []
        self.compared = 0

    def check(self, kind: str, label: str, got: Any, want: Tensor, tolerance: float | None = None) -> None:
        """Compare with the limits of `kind` (or with `tolerance` for the largest difference)."""
        most, mean = LIMITS[kind]
        most = most if tolerance is None else tolerance
        got = torch.as_tensor(got).double()
        assert got.shape == want.shape, f"{self.name} {label}: {tuple(got.shape)} is not {tuple(want.shape)}"
        difference = (got - want.double()).abs()
        largest = float(difference.max())
        self.compared += 1
        if kind != "exact":
            self.largest = max(self.largest, largest)
            if largest / most >= self.worst[0]:
                self.worst = (largest / most, label)
        bad = not largest <= most or (mean is not None and not float(difference.mean()) <= mean)
        if bad or not bool(torch.isfinite(got).all()):
            self.failures.append(f"{label}: {largest:.3e} (mean {float(difference.mean()):.3e}), allowed {most:g}")

    def line(self) -> str:
        verdict = "BAD" if self.failures else "ok "
        return (
            f"{verdict} {self.name:40s} {self.compared:4d} arrays, largest error {self.largest:.2e} ({self.worst[1]})"
        )
