"""Clean latents from what a network predicts."""

from __future__ import annotations

import pytest
import torch

from engine.models.spec import Schedule
from engine.stream.timesteps import Sigmas, linear_estimate, mix

SIGNAL = torch.tensor([50.0, 9.0, 0.0])[:, None, None, None]


@pytest.mark.parametrize("sigma", [0.3, 0.7, 0.9])
def test_the_linear_estimate_is_the_best_one(sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 3, 1, 64, 64, generator=generator) * SIGNAL
    noisy = mix(clean, torch.randn(clean.shape, generator=generator), sigma)
    found = linear_estimate(noisy, torch.tensor(sigma), SIGNAL)
    error = (found - clean).square().mean()
    assert bool(((found * 1.05 - clean).square().mean() > error) & ((found * 0.95 - clean).square().mean() > error))
    assert not found[:, 2].any()  # an empty channel holds nothing but noise


def test_without_noise_the_estimate_is_the_latent() -> None:
    clean = torch.randn(1, 2, 1, 4, 4)
    assert torch.allclose(linear_estimate(clean, torch.tensor(0.0), SIGNAL[:2]), clean)


def test_a_correction_is_added_to_the_estimate() -> None:
    sigmas = Sigmas(Schedule(prediction="correction", signal=(50.0, 9.0, 0.0)), "cpu")
    noisy, predicted = torch.randn(2, 3, 1, 4, 4), torch.randn(2, 3, 1, 4, 4)
    sigma = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1, 1)
    made = sigmas.clean(noisy, predicted, sigma)
    assert torch.allclose(made, predicted + linear_estimate(noisy, sigma, SIGNAL))
    assert torch.equal(made[:, 2], predicted[:, 2])
