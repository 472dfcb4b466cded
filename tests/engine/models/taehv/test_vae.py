"""The tiny autoencoder: equals the plain computation of its layers, in one call or streamed; a reset state is new."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import ModelError
from engine.models.taehv.vae import TinyCodec, TinyShape, TinyVAE
from engine.models.wan21.vae_shape import VAEShape

SIZE = (32, 48)
NARROW = TinyShape(encoder=8, decoder=(16, 8, 8, 8))


def random_network(shape: TinyShape) -> TinyVAE:
    network = TinyVAE(shape)
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        spread = (1 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.05
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    network.decoder["22"].weight.data *= 0.5
    network.decoder["22"].bias.data += 0.5
    return network


@pytest.fixture(scope="module")
def codec() -> TinyCodec:
    return TinyCodec(random_network(NARROW))


def clip(frames: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, frames, *SIZE, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def latents(frames: int, batch: int = 1) -> Tensor:
    shape = (batch, 16, frames, SIZE[0] // 8, SIZE[1] // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(frames))


def plain_block(weights: dict[str, Tensor], name: str, x_TCHW: Tensor) -> Tensor:
    before = torch.cat([torch.zeros_like(x_TCHW[:1]), x_TCHW[:-1]])
    h = torch.cat([x_TCHW, before], dim=1)
    for layer in ("0", "2", "4"):
        h = F.conv2d(h, weights[f"{name}.conv.{layer}.weight"], weights[f"{name}.conv.{layer}.bias"], padding=1)
        h = F.relu(h) if layer != "4" else h
    return F.relu(h + x_TCHW)


def plain_decode(weights: dict[str, Tensor], z_TCHW: Tensor) -> Tensor:
    """The decoder as published, layer by layer over the whole clip."""
    x = F.relu(F.conv2d(torch.tanh(z_TCHW / 3) * 3, weights["decoder.1.weight"], weights["decoder.1.bias"], padding=1))
    for start, grow in ((3, 1), (9, 2), (15, 2)):
        for index in range(start, start + 3):
            x = plain_block(weights, f"decoder.{index}", x)
        x = F.conv2d(F.interpolate(x, scale_factor=2), weights[f"decoder.{start + 4}.conv.weight"])
        x = x.reshape(-1, x.shape[1] // grow, *x.shape[2:])
        x = F.conv2d(x, weights[f"decoder.{start + 5}.weight"], padding=1)
    return F.conv2d(F.relu(x), weights["decoder.22.weight"], weights["decoder.22.bias"], padding=1).clamp(0, 1)


def plain_encode(weights: dict[str, Tensor], x_TCHW: Tensor) -> Tensor:
    """The encoder as published, layer by layer over the whole clip."""
    x = F.relu(F.conv2d(x_TCHW, weights["encoder.0.weight"], weights["encoder.0.bias"], padding=1))
    for start, pool in ((2, 2), (7, 2), (12, 1)):
        x = F.conv2d(x.reshape(-1, x.shape[1] * pool, *x.shape[2:]), weights[f"encoder.{start}.conv.weight"])
        x = F.conv2d(x, weights[f"encoder.{start + 1}.weight"], stride=2, padding=1)
        for index in range(start + 2, start + 5):
            x = plain_block(weights, f"encoder.{index}", x)
    return F.conv2d(x, weights["encoder.17.weight"], weights["encoder.17.bias"], padding=1)


def test_decoding_equals_the_published_layers(codec: TinyCodec) -> None:
    z = latents(4)
    expected = plain_decode(dict(codec.network.state_dict()), z[0].transpose(0, 1))[3:] * 2 - 1
    ours = codec.decode(z, codec.decoder_state(1, *SIZE))[0].transpose(0, 1)
    assert expected.std() > 0.05
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


def test_encoding_equals_the_published_layers_after_copies_of_the_first_frame(
    codec: TinyCodec,
) -> None:
    video = clip(9)
    frames = ((video[0].transpose(0, 1)) + 1) / 2
    expected = plain_encode(dict(codec.network.state_dict()), torch.cat([frames[:1]] * 3 + [frames]))
    raw = expected * torch.tensor(VAEShape().std).view(-1, 1, 1) + torch.tensor(VAEShape().mean).view(-1, 1, 1)
    ours = codec.encode(video, codec.encoder_state(1, *SIZE))[0].transpose(0, 1)
    torch.testing.assert_close(ours, raw, atol=5e-5, rtol=0)


def test_raw_latents_are_scaled_in_encoder_and_decoder(codec: TinyCodec) -> None:
    raw = TinyCodec(random_network(NARROW), raw_latents=True)
    mean, std = (torch.tensor(s).view(1, -1, 1, 1, 1) for s in (VAEShape().mean, VAEShape().std))
    encoded = raw.encode(clip(5), raw.encoder_state(1, *SIZE))
    torch.testing.assert_close(encoded * std + mean, codec.encode(clip(5), codec.encoder_state(1, *SIZE)))
    decoded = codec.decode(latents(3) * std + mean, codec.decoder_state(1, *SIZE))
    torch.testing.assert_close(raw.decode(latents(3), raw.decoder_state(1, *SIZE)), decoded)


@pytest.mark.parametrize("batch", [1, 2])
def test_streamed_equals_the_whole_clip(codec: TinyCodec, batch: int) -> None:
    video, z = clip(13, batch), latents(4, batch)
    whole = codec.encode(video, codec.encoder_state(batch, *SIZE)), codec.decode(z, codec.decoder_state(batch, *SIZE))
    encode, decode = codec.encoder_state(batch, *SIZE), codec.decoder_state(batch, *SIZE)
    encoded = [codec.encode(video[:, :, a:b], encode) for a, b in ((0, 5), (5, 9), (9, 13))]
    decoded = [codec.decode(z[:, :, a:b], decode) for a, b in ((0, 2), (2, 3), (3, 4))]
    assert [p.shape[2] for p in decoded] == [5, 4, 4]
    torch.testing.assert_close(torch.cat(encoded, 2), whole[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(decoded, 2), whole[1], atol=1e-5, rtol=0)


def test_state_keeps_its_addresses_resumes_and_resets(codec: TinyCodec) -> None:
    state = codec.decoder_state(1, *SIZE)
    addresses = {name: tensor.data_ptr() for name, tensor in state.tensors().items()}
    first = codec.decode(latents(2), state)
    assert {name: tensor.data_ptr() for name, tensor in state.tensors().items()} == addresses
    resumed = codec.decoder_state(1, *SIZE)
    for name, tensor in resumed.tensors().items():
        tensor.copy_(state.tensors()[name])
    assert torch.equal(codec.decode(latents(1), resumed), codec.decode(latents(1), state))
    state.reset()
    assert torch.equal(codec.decode(latents(2), state), first)


def test_a_checkpoint_that_splits_into_more_frames_is_trimmed_to_the_last(codec: TinyCodec) -> None:
    weights = dict(codec.network.state_dict())
    grown = weights | {
        "decoder.7.conv.weight": torch.cat([torch.zeros(16, 16, 1, 1), weights["decoder.7.conv.weight"]])
    }
    assert torch.equal(codec.network.trimmed(grown)["decoder.7.conv.weight"], weights["decoder.7.conv.weight"])


def test_wrong_number_of_frames_is_refused(codec: TinyCodec) -> None:
    with pytest.raises(ModelError, match="4 frames were given"):
        codec.encode(clip(4), codec.encoder_state(1, *SIZE))
