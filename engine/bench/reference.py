"""An adapter for the published implementation of StreamDiffusionV2, for side-by-side benchmarks only.

Needs the PyPI package `streamdiffusionv2`, without its dependencies (it pins old versions), and those that it imports:
see `INSTALL`. The package's classes load weights from fixed folders in their
constructors, so they are assembled here from their parts, with the caller's weights. Their arithmetic is unchanged.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import ModelError
from engine.models.spec import CacheShape, Schedule
from engine.network.dit_shape import DiTShape

INSTALL = 'pip install -e ".[versus]" && pip install --no-deps streamdiffusionv2==0.1.1'
"""The command that installs all that this module needs, in a checkout."""


def installed() -> bool:
    """Whether the published implementation is installed."""
    try:
        return importlib.util.find_spec("models.wan.causal_stream_inference") is not None
    except ImportError:
        return False


class Reference:
    """The published stream batch: encode, network, decode.

    Args:
        shape, cache, schedule: as in `engine.models.spec`.
        steps: denoising steps.
        height, width: pixels.
        dit: weights of the network by Wan's names.
        text: prompt embedding [1, text_len, text_dim].
        vae: weights of the VAE by Wan's names; None to run without it.
        vae_base: base width of the VAE.
        batch: whether to use the stream batch; otherwise the steps run one after the other.
        device, dtype: where and in which type it computes.

    Raises:
        ModelError: if the package is not installed.
    """

    def __init__(
        self,
        shape: DiTShape,
        cache: CacheShape,
        schedule: Schedule,
        *,
        steps: int,
        height: int,
        width: int,
        dit: Mapping[str, Tensor],
        text: Tensor,
        vae: Mapping[str, Tensor] | None = None,
        vae_base: int = 96,
        batch: bool = True,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        warnings.filterwarnings("ignore", message=".*flash_attn.*|.*cuda.amp.*")
        try:
            from models.wan.causal_model import CausalWanModel
            from models.wan.causal_stream_inference import CausalStreamInferencePipeline
            from models.wan.flow_match import FlowMatchScheduler
            from models.wan.wan_base.modules.vae import WanVAE_
            from models.wan.wan_wrapper import CausalWanDiffusionWrapper
        except ImportError as error:
            raise ModelError(
                f"The published implementation, or a package that it imports, is not installed ({error}).",
                f"For this benchmark only: {INSTALL}",
            ) from None

        self.device, self.dtype, self.batch = torch.device(device), dtype, batch
        self.frame_tokens = (height // 16) * (width // 16)
        self.slots = cache.slots
        wrapper: Any = CausalWanDiffusionWrapper.__new__(CausalWanDiffusionWrapper)
        nn.Module.__init__(wrapper)
        with torch.device("meta"):
            network = CausalWanModel(
                dim=shape.dim,
                ffn_dim=shape.ffn,
                num_heads=shape.heads,
                num_layers=shape.layers,
                text_dim=shape.text_dim,
                text_len=shape.text_len,
                freq_dim=shape.freq_dim,
                eps=shape.eps,
            )
        network.freqs = _frequencies(shape)
        network.load_state_dict(dict(dit), strict=True, assign=True)
        wrapper.model = network.to(self.device, dtype).eval().requires_grad_(False)
        wrapper.uniform_timestep = False
        wrapper.seq_len = 32760
        wrapper.scheduler = FlowMatchScheduler(shift=schedule.shift, sigma_min=0.0, extra_one_step=True)
        wrapper.scheduler.set_timesteps(1000, training=True)
        wrapper.post_init()

        pipe: Any = CausalStreamInferencePipeline.__new__(CausalStreamInferencePipeline)
        nn.Module.__init__(pipe)
        pipe.device, pipe.generator, pipe.scheduler = self.device, wrapper, wrapper.scheduler
        pipe.text_encoder = _Prompt(text.to(self.device, dtype))
        pipe.denoising_step_list = torch.tensor(schedule.steps[:steps], dtype=torch.long, device=self.device)
        pipe.num_transformer_blocks, pipe.num_heads = shape.layers, shape.heads
        pipe.frame_seq_length, pipe.num_kv_cache = self.frame_tokens, cache.slots
        pipe.num_frame_per_block, pipe.conditional_dict = 1, None
        pipe.kv_cache1 = [self._layer_cache(shape, cache, steps) for _ in range(shape.layers)]
        pipe.crossattn_cache = [
            {"k": None, "v": None, "is_init": False} for _ in range(shape.layers)
        ]  # filled by the first forward
        for block in network.blocks:
            block.self_attn.sink_size = cache.sinks
            block.self_attn.adapt_sink_thr = -1 if cache.threshold is None else cache.threshold
        self.pipe = pipe
        self.first_step = int(schedule.steps[0])
        self.position = 0

        self.vae: Any = None
        if vae is not None:
            self.vae = WanVAE_(
                dim=vae_base,
                z_dim=16,
                dim_mult=[1, 2, 4, 4],
                num_res_blocks=2,
                attn_scales=[],
                temperal_downsample=[False, True, True],
                dropout=0.0,
            )
            self.vae.load_state_dict(dict(vae), strict=True)
            self.vae.to(self.device, dtype).eval().requires_grad_(False)
            self.vae.first_encode = self.vae.first_decode = True
            self.scale = [
                torch.zeros(16, device=self.device, dtype=dtype),
                torch.ones(16, device=self.device, dtype=dtype),
            ]

    def _layer_cache(self, shape: DiTShape, cache: CacheShape, steps: int) -> dict[str, Any]:
        size = (1, cache.slots * self.frame_tokens, shape.heads, shape.head_dim)
        zero = torch.zeros(1, dtype=torch.long, device=self.device)
        return {
            "k": torch.zeros(size, dtype=self.dtype, device=self.device),
            "v": torch.zeros(size, dtype=self.dtype, device=self.device),
            "global_end_index": zero,
            "local_end_index": zero.clone(),
            "total_steps": steps,
            "current_step": steps,
        }

    @torch.no_grad()
    def first(self, noisy_1FCHW: Tensor) -> Tensor:
        """Denoise the first two latent frames [1, 2, C, h, w] and fill the caches."""
        end = self.frame_tokens * noisy_1FCHW.shape[1]
        x0 = self.pipe.prepare(
            [""], self.device, self.dtype, noise=noisy_1FCHW, current_start=0, current_end=end, batch_denoise=self.batch
        )
        self.position = noisy_1FCHW.shape[1]
        return x0

    @torch.no_grad()
    def step(self, noisy_11CHW: Tensor) -> Tensor:
        """Run one chunk [1, 1, C, h, w]; returns the clean latent of the last row, with the same shape."""
        if self.position >= 50:
            self.position = self.slots - 1
        start = self.position * self.frame_tokens
        run = self.pipe.inference_stream if self.batch else self.pipe.inference_wo_batch
        x0 = run(noisy_11CHW, start, start + self.frame_tokens, self.first_step)
        self.position += 1
        return x0[-1:]

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Encode the next frames [B, 3, T, H, W] in [-1, 1] to the raw latent mean [B, C, F, h, w]."""
        return self.vae.stream_encode(video_BCTHW, None)

    @torch.no_grad()
    def decode(self, latent_BCFhw: Tensor) -> Tensor:
        """Decode the next latents [B, C, F, h, w] to frames [B, 3, T, H, W]."""
        return self.vae.stream_decode(latent_BCFhw, self.scale)


class _Prompt(nn.Module):
    """Takes the place of the reference's text encoder and returns a given embedding."""

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.text = text

    def forward(self, text_prompts: list[str]) -> dict[str, Tensor]:
        """The given embedding, whatever the prompts are."""
        return {"prompt_embeds": self.text}


def _frequencies(shape: DiTShape) -> Tensor:
    from models.wan.wan_base.modules.model import rope_params

    d = shape.head_dim
    return torch.cat([rope_params(1024, d - 4 * (d // 6)), *(rope_params(1024, 2 * (d // 6)) for _ in range(2))], dim=1)
