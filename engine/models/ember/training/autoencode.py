"""Training of the autoencoder: initialisation with principal components, then gradient descent."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from engine.models.ember.codec import GROUP, STRIDE, EmberCodec
from engine.models.ember.training.footage.data import draw
from engine.models.ember.training.losses import pixel_loss, psnr

PICTURE_GAIN = 24.0
"""Root mean square of the picture channels; the larger, the more of the picture remains at a given noise level."""


class AutoencodeTask:
    """Reconstructs content and style targets from slightly noisy latents; implements `loop.Task`.

    Args:
        codec: the trained codec.
        clips: the pool, [count, frames, size, size, 3] uint8.
        seed: seed of the batches.
        batch, size: clips per step, and their side in pixels.
    """

    def __init__(self, codec: EmberCodec, clips: np.ndarray, seed: int, *, batch: int = 4, size: int = 96) -> None:
        self.codec, self.clips, self.seed, self.batch, self.size = codec, clips, seed, batch, size
        self.modules: dict[str, nn.Module] = {"codec": codec}

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """All weights at one rate."""
        return [(list(self.codec.parameters()), 1.5e-3)]

    def start(self) -> float:
        """Initialise the linear maps with principal components of a few batches; returns their PSNR in dB."""
        groups = torch.cat([self.groups_of(-1 - n)[0] for n in range(8)])
        return principal_components(self.codec, groups)

    def loss(self, number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """One step; see `engine.models.ember.training.loop.Task`."""
        first, second = self.groups_of(number)
        codec = self.codec
        still = torch.rand(len(first), 1, 1, 1, generator=generator) < 0.1  # as a stream's first frame
        first = torch.where(still, first[:, -3:].repeat(1, GROUP, 1, 1), first)
        z0 = codec.encode_group(first, first[:, :3])
        z1 = codec.encode_group(second, first[:, -3:])
        spread = z1.detach().std((0, 2, 3), keepdim=True)  # 0 in the look channels
        noise = torch.randn(z1.shape, generator=generator) * spread
        noise = noise * 0.1 * torch.rand(len(z1), 1, 1, 1, generator=generator)
        made = codec.decode_group(torch.cat((z1 + noise, z0)), torch.cat((z0, z0)))[: len(z1) + len(z0) // 2]
        wanted = torch.cat((second, first))[: len(made)]
        loss = pixel_loss(made, wanted)
        total = loss + 0.1 * functional.mse_loss(made, wanted) + 1e-3 * z1.square().mean()
        return total, {"pixel": loss.item(), "psnr": psnr(made.detach(), wanted).item()}

    def groups_of(self, number: int) -> tuple[Tensor, Tensor]:
        """Two successive groups of frames, each [2 * B, 12, H, W]: first the content, then its style targets."""
        batch = draw(self.clips, self.seed, number, batch=self.batch, frames=2 * GROUP, size=self.size)
        video = torch.cat((batch.content_BT3HW, batch.styled_BT3HW))
        frames = rearrange(video, "b (g t) c h w -> g b (t c) h w", g=2)
        return frames[0], frames[1]


@torch.no_grad()
def principal_components(codec: EmberCodec, groups_BCHW: Tensor) -> float:
    """Set the codec's linear maps to the best linear autoencoder of these groups; returns its PSNR in dB."""
    blocks = rearrange(groups_BCHW, "b c (h y) (w x) -> (b h w) (c y x)", y=STRIDE, x=STRIDE)
    mean = blocks.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((blocks - mean).T))
    kept = codec.picture
    basis = vectors[:, -kept:].flip(1)
    codec.encoder.linear.weight.copy_(basis.T.reshape(kept, 3 * GROUP, STRIDE, STRIDE))
    codec.encoder.linear.bias.copy_(-basis.T @ mean)
    codec.decoder.linear.weight.copy_(basis[:, :, None, None])
    codec.decoder.linear.bias.copy_(mean)
    return float(-10 * (values[:-kept].sum() / len(values) / 4).log10())


@torch.no_grad()
def standardise(codec: EmberCodec, groups_BCHW: Tensor) -> None:
    """Centre the latents and scale them to a root mean square of `PICTURE_GAIN`.

    Each channel is divided by the square root of its standard deviation, not by all of it: strong channels (coarse
    structure) stay stronger, so that they remain visible at higher noise levels than detail.
    """
    codec.mean.zero_()
    codec.scale.fill_(1.0)
    raw = codec.encode_group(groups_BCHW, groups_BCHW[:, :3])[:, : codec.picture]
    spread = raw.std((0, 2, 3), keepdim=True)
    shrink = (spread * spread.square().mean().sqrt()).sqrt()
    codec.mean.copy_(raw.mean((0, 2, 3), keepdim=True))
    codec.scale.copy_(1 / shrink)
    codec.scale.mul_(PICTURE_GAIN / (spread / shrink).square().mean().sqrt())
