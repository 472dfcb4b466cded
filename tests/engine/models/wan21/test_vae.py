"""Wan's video autoencoder: streaming equals one call, state can be saved and reset, fast convolutions are exact."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from engine.errors import ModelError
from engine.models import conv
from engine.models.conv import TemporalConv, UpsampleConv
from engine.models.wan21 import norm_silu
from engine.models.wan21.vae import WanCodec, WanVAE
from engine.models.wan21.vae_shape import VAEShape

SIZE = (32, 48)


def random_codec(base: int = 8) -> WanCodec:
    network = WanVAE(VAEShape(base=base))
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        fan_in = max(1, parameter[0].numel())
        spread = 1.4 * fan_in**-0.5 if parameter.dim() > 1 else 0.1
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    return WanCodec(network)


@pytest.fixture(scope="module")
def codec() -> WanCodec:
    return random_codec()


def clip(frames: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, frames, *SIZE, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def latents(frames: int, batch: int = 1) -> torch.Tensor:
    shape = (batch, 16, frames, SIZE[0] // 8, SIZE[1] // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("batch", [1, 2])
def test_streamed_encoding_equals_the_whole_clip(codec: WanCodec, batch: int) -> None:
    video = clip(13, batch)
    whole = codec.encode(video, codec.encoder_state(batch, *SIZE))
    state = codec.encoder_state(batch, *SIZE)
    parts = [codec.encode(video[:, :, a:b], state) for a, b in ((0, 5), (5, 9), (9, 13))]
    assert whole.shape == (batch, 16, 4, 4, 6)
    torch.testing.assert_close(torch.cat(parts, 2), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch", [1, 2])
def test_streamed_decoding_equals_the_whole_clip(codec: WanCodec, batch: int) -> None:
    z = latents(4, batch)
    whole = codec.decode(z, codec.decoder_state(batch, *SIZE))
    state = codec.decoder_state(batch, *SIZE)
    parts = [codec.decode(z[:, :, a:b], state) for a, b in ((0, 2), (2, 3), (3, 4))]
    assert whole.shape == (batch, 3, 13, *SIZE)
    assert [p.shape[2] for p in parts] == [5, 4, 4]
    torch.testing.assert_close(torch.cat(parts, 2), whole, atol=1e-6, rtol=0)


def test_streams_of_a_batch_do_not_mix(codec: WanCodec) -> None:
    video = clip(9, 2)
    both = codec.encode(video, codec.encoder_state(2, *SIZE))
    second = codec.encode(video[1:], codec.encoder_state(1, *SIZE))
    torch.testing.assert_close(both[1:], second, atol=5e-5, rtol=0)


def test_state_keeps_its_addresses_and_reset_equals_new(codec: WanCodec) -> None:
    state = codec.decoder_state(1, *SIZE)
    addresses = {name: tensor.data_ptr() for name, tensor in state.tensors().items()}
    first = codec.decode(latents(3), state)
    assert any(tensor.abs().max() > 0 for tensor in state.tensors().values())
    assert {name: tensor.data_ptr() for name, tensor in state.tensors().items()} == addresses
    state.reset()
    assert all(tensor.abs().max() == 0 for tensor in state.tensors().values())
    assert torch.equal(codec.decode(latents(3), state), first)


def test_saved_and_resumed_equals_uninterrupted(codec: WanCodec) -> None:
    encode, decode = codec.encoder_state(1, *SIZE), codec.decoder_state(1, *SIZE)
    codec.encode(clip(5), encode)
    codec.decode(latents(2), decode)
    resumed = codec.encoder_state(1, *SIZE), codec.decoder_state(1, *SIZE)
    for saved, fresh in zip((encode, decode), resumed, strict=True):
        for name, tensor in fresh.tensors().items():
            tensor.copy_(saved.tensors()[name])
    assert torch.equal(codec.encode(clip(4), resumed[0]), codec.encode(clip(4), encode))
    assert torch.equal(codec.decode(latents(1), resumed[1]), codec.decode(latents(1), decode))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_close(codec: WanCodec, dtype: torch.dtype) -> None:
    half = WanCodec(copy.deepcopy(codec.network).to(dtype))
    video = torch.zeros(1, 3, 5, *SIZE)
    assert half.encode(video, half.encoder_state(1, *SIZE)).isfinite().all()
    ours = half.decode(latents(2), half.decoder_state(1, *SIZE)).float()
    exact = codec.decode(latents(2), codec.decoder_state(1, *SIZE))
    assert (ours - exact).square().mean().sqrt() < 0.05


@pytest.mark.parametrize(("frames", "warm"), [(4, False), (0, False), (5, True), (3, True)])
def test_wrong_number_of_frames_is_refused(codec: WanCodec, frames: int, warm: bool) -> None:
    state = codec.encoder_state(1, *SIZE)
    if warm:
        codec.encode(clip(5), state)
    with pytest.raises(ModelError, match="frames were given"):
        codec.encode(torch.zeros(1, 3, frames, *SIZE), state)


def test_size_off_the_stride_is_refused(codec: WanCodec) -> None:
    with pytest.raises(ModelError, match="multiples of 8"):
        codec.encoder_state(1, 30, 48)


@pytest.mark.parametrize("frames", range(1, 8))
def test_wide_temporal_convolution_equals_conv3d(frames: int) -> None:
    generator = torch.Generator().manual_seed(frames)
    weight, bias = torch.randn(80, 64, 3, 3, 3, generator=generator) * 0.02, torch.randn(80, generator=generator)
    window = torch.randn(1, 64, frames + 2, 9, 7, generator=generator)
    ours = TemporalConv(weight, bias)(window[0].transpose(0, 1).contiguous(memory_format=torch.channels_last), 1)
    exact = F.conv3d(window.double(), weight.double(), bias.double(), padding=(0, 1, 1))[0].transpose(0, 1)
    assert (ours - exact).abs().max() < 2e-5


@pytest.mark.parametrize(("frames", "batch"), [(9, 1), (5, 2)])
def test_the_layers_of_other_devices_compute_the_same(
    codec: WanCodec, frames: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent_mean = codec.encode(clip(frames, batch), codec.encoder_state(batch, *SIZE))
    pictures = codec.decode(latents(3, batch), codec.decoder_state(batch, *SIZE))
    monkeypatch.setattr(conv, "on_cpu", lambda tensor: False)
    other = random_codec()
    theirs = other.encode(clip(frames, batch), other.encoder_state(batch, *SIZE))
    torch.testing.assert_close(theirs, latent_mean, atol=5e-5, rtol=0)
    theirs = other.decode(latents(3, batch), other.decoder_state(batch, *SIZE))
    torch.testing.assert_close(theirs, pictures, atol=5e-5, rtol=0)


def test_an_empty_picture_is_normalised_without_dividing_by_zero() -> None:
    x, past, window = (torch.zeros(n, 4, 2, 3).contiguous(memory_format=torch.channels_last) for n in (3, 2, 5))
    norm_silu.plain(x, torch.ones(4), past, window.fill_(1.0))
    assert not window.any()


def test_upsampling_by_phases_equals_nearest_then_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(6, 5, 3, 3, generator=generator), torch.randn(6, generator=generator)
    x = torch.randn(2, 5, 4, 7, generator=generator)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), weight, bias, padding=1)
    ours = UpsampleConv(weight, bias)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
