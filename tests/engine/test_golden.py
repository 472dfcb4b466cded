"""The engine compared with reference vectors: network, cache, noise, autoencoders, text, whole streams.

    python -m pytest tests/engine/test_golden.py --golden-dir DIR

checks any folder of the same layout; without the option, the selection that is kept beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.distributed.split import even_split, rebalance
from engine.models.spec import Schedule
from engine.stream.kv_cache import Rule
from engine.stream.noise import RELEASED, NoiseController
from engine.stream.stream import LocalStream
from engine.stream.timesteps import Sigmas, mix, steps_for
from tests.support.golden_models import text_encoder, tiny_autoencoder
from tests.support.golden_set import GoldenSet, Replay, Report

SETS: dict[Path, GoldenSet] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.getoption("--golden-dir").resolve()
    if folder not in SETS:
        SETS[folder] = GoldenSet(folder)
    names = sorted(p.stem for p in folder.iterdir() if p.suffix in (".safetensors", ".json"))
    cases = [name for name in names if name.split("_")[0][0] in "abcdeht" and "_" in name]
    metafunc.parametrize(("golden", "name"), [(SETS[folder], name) for name in cases], ids=cases)


def test_case(golden: GoldenSet, name: str, tell: Callable[[str], None]) -> None:
    report = Report(name)
    with torch.inference_mode():
        _checker(name)(golden, name, report)
    tell(report.line())
    assert report.compared, f"{name}: nothing was compared"
    assert not report.failures, "\n".join(report.failures)


def _checker(name: str) -> Callable[[GoldenSet, str, Report], None]:
    starts = {
        "a_": single_forward,
        "b": cached_forwards,
        "c_": vae_stream,
        "d_motion": motion,
        "d_scheduler": scheduler,
        "d_block": block_scheduler,
        "e": whole_stream,
        "h_": tiny_autoencoder,
        "t_": text_encoder,
    }
    return next(check for start, check in starts.items() if name.startswith(start))


def single_forward(golden: GoldenSet, name: str, report: Report) -> None:
    """The network alone on whole clips under a block-causal mask, with its intermediate results."""
    data, _ = golden.case(name)
    text = golden.prompts["A"]
    for case, block in (("causal_nfpb1", 1), ("causal_nfpb2", 2), ("bidir", None)):
        t = data[f"{case}.t"].view(1, -1)
        inside = _listen(golden, data, case)
        flow = golden.dit(data[f"{case}.x"], t, text, frames_per_block=block)
        report.check("latent", f"{case}.flow", flow, data[f"{case}.flow"])
        for label, got in inside():
            report.check("latent", label, got, data[label])
        if f"{case}.x0" in data:
            sigma = Sigmas(golden.spec(1, 0, -1, None).schedule, "cpu")
            x0 = sigma.clean(data[f"{case}.x"], flow, sigma.at(t)[:, None, :, None, None])
            report.check("latent", f"{case}.x0", x0.transpose(1, 2), data[f"{case}.x0"])


def _listen(golden: GoldenSet, data: dict[str, Tensor], case: str) -> Callable[[], list[tuple[str, Tensor]]]:
    """Record the blocks' outputs in the next forward, and compute the embeddings."""
    dit, heard, hooks = golden.dit, [], []
    prefix = f"{case}.act."
    if not any(key.startswith(prefix) for key in data):
        return list

    def catch(label: str) -> Callable[..., None]:
        return lambda module, inputs, output: heard.append((label, output.clone()))

    for index, block in enumerate(dit.blocks):
        for suffix, module in (("", block), (".self_attn", block.self_attn), (".cross_attn", block.cross_attn)):
            label = f"{prefix}block{index}{suffix}"
            if label in data:
                hooks.append(module.register_forward_hook(catch(label)))
    time = dit.time(data[f"{case}.t"].view(1, -1))
    embedded = {
        "patch_embed": dit.embed(data[f"{case}.x"]),
        "text_embed_first32": dit.embed_text(golden.prompts["A"])[:, :32],
        "time_embed": time.e_BFD[0],
        "time_proj": time.e0_BF6D[0].flatten(1),
    }
    heard += [(prefix + key, value) for key, value in embedded.items() if prefix + key in data]

    def finish() -> list[tuple[str, Tensor]]:
        for hook in hooks:
            hook.remove()
        return heard

    return finish


def cached_forwards(golden: GoldenSet, name: str, report: Report) -> None:
    """Cache, eviction queue, positions and stream batch, without autoencoder."""
    data, meta = golden.case(name)
    count = meta["step"]
    stream, noise = _stream(golden, meta["kv"], meta["sink"], meta["thr"], meta["t_refresh"], count, meta["kind"])
    state = stream.state
    timesteps = stream.spec.schedule.steps[:count]
    stream.set_prompt(golden.prompts["A"][0])
    noise.next = list(data["renoise_first"][:, None]) if count > 1 else []
    ((_, first),) = stream.denoise(_bcf(data["first_x"]), data["first_t"][0, 0, 0], timesteps, "first")
    report.check("latent", "first_x0", _bcf(first), data["first_x0"][-1])
    frames_in_slot = {row: dict(enumerate(range(data["first_x"].shape[1]))) for row in range(count)}
    for call, t in enumerate(data["in_step"]):
        if meta["swap_at"] == call:
            stream.set_prompt(golden.prompts["B"][0])
        noise.next = _again(data["renoise"][call], stream.batch) if count > 1 else []
        at = f"call {call}"
        report.check("exact", f"{at} position", state.position, data["in_start_frame"][call])
        flights = [(state.number, state.position), *((f.number, f.position) for f in state.flights)]
        done = stream.denoise(_bcf(data["in_x"][call, None]), t.long(), timesteps, call)
        lag = count - 1 if stream.batch else 0
        assert [ticket for ticket, _ in done] == ([call - lag] if call >= lag else []), at
        if done and "out_x0" in data:
            report.check("latent", f"{at} x0", _bcf(done[0][1])[0], data["out_x0"][call])
        if "call.x0" in data:
            rows = slice(0, min(call + 1, count)) if stream.batch else slice(-1, None)
            got = _bcf(state.clean_SCFhw[rows] if stream.batch else done[0][1])
            report.check("latent", f"{at} x0", got, data["call.x0"][call, rows])
        for row in range(min(call + 1, count) if stream.batch else 1):
            queue = data["evict_frames"][call, :, row]
            got = state.cache.queue_ASQ[:, row, : queue.shape[1]].expand_as(queue)
            report.check("exact", f"{at} row {row} queue", got, queue)
            frames_in_slot[row][int(state.cache.slot_ASF[0, row, 0])] = flights[row][1]
            slots = [frames_in_slot[row].get(slot, -1) for slot in range(meta["kv"])]
            report.check("exact", f"{at} row {row} slots", slots, data["slot_frames"][call, row])
    for key in (key for key in data if key.startswith("final_cache")):
        _, layer, which = key.split(".")
        held = {"k": state.cache.k_SRfJK, "v": state.cache.v_SRfJK}[which][int(layer)][:count]
        report.check("latent", key, held.flatten(1, 2), data[key])


def vae_stream(golden: GoldenSet, name: str, report: Report) -> None:
    """The video autoencoder as a stream: encoder and decoder."""
    data, _ = golden.case(name)
    codec, config = golden.codec(), golden.config
    video = golden.pixels_3THW[None, :, data["frames_used"]]
    height, width = video.shape[-2:]
    state = codec.encoder_state(1, height, width)
    cuts = [0, *range(5, video.shape[2] + 1, 4)]
    means = [codec.encode(video[:, :, a:b], state)[0] for a, b in pairwise(cuts)]
    mu = torch.cat(means, dim=1)
    report.check("mu", "mu_raw", mu, data["mu_raw"])
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1, 1) for key in ("vae_mean", "vae_std"))
    report.check("mu", "mu_normalised", (mu - mean) / std, data["mu_normalised"])
    state = codec.decoder_state(1, height, width)
    latents = _bcf(data["dec_latents"])
    parts = [latents[:, :, :2], *latents[:, :, 2:].split(1, dim=2)]
    frames = torch.cat([codec.decode(part, state)[0] for part in parts], dim=1).transpose(0, 1)
    if "dec_frames_sub" in data:
        report.check("frames", "dec_frames_sub", frames[..., ::2, ::2], data["dec_frames_sub"])
    for key in (key for key in data if key.startswith("dec_frames_full_")):
        chosen = [int(n) for n in key.removeprefix("dec_frames_full_").split("_")]
        report.check("frames", key, frames[chosen], data[key])


def motion(golden: GoldenSet, name: str, report: Report) -> None:
    """The released motion-aware noise controller; against its own run in bf16 the step may differ by one."""
    data, _ = golden.case(name)
    video = data["video"][0]
    for prefix in sorted({key.rsplit(".", 1)[0] for key in data if key.endswith(".motion")}):
        precision, init = prefix.split(".init")
        controller = NoiseController(RELEASED, *video.shape[-2:], "cpu")
        steps = steps_for(Schedule(strength=float(init)), float(init), 1)
        controller.begin(video[:, :1], steps)
        for chunk, want in enumerate(data[f"{prefix}.noise_scale"]):
            scale, step = controller.update(video[:, 1 + 4 * chunk : 5 + 4 * chunk], steps)
            exact = precision == "fp32"
            report.check("noise_scale", f"{prefix} chunk {chunk}", scale, want, tolerance=None if exact else 1e-3)
            slack = 0.0 if exact and data[f"{prefix}.step_margin"][chunk] >= 1e-4 else 1.0
            report.check("exact", f"{prefix} step {chunk}", step, data[f"{prefix}.step"][chunk], tolerance=slack)


def scheduler(golden: GoldenSet, name: str, report: Report) -> None:
    """The table of sigmas, clean latents from flows, and mixing in noise."""
    data, _ = golden.case(name)
    schedule = Schedule(shift=golden.config["scheduler"]["shift"])
    sigmas = Sigmas(schedule, "cpu")
    report.check("latent", "sigmas", sigmas.sigma_N, data["sigmas"])
    report.check("latent", "timesteps", sigmas.timestep_N / 1000, data["timesteps"] / 1000)
    report.check("latent", "sigma_for_t", sigmas.by_timestep, data["sigma_for_t"])
    sigma = sigmas.at(data["ex_t"]).view(-1, 1, 1, 1)
    report.check("latent", "x0", sigmas.clean(data["ex_xt"], data["ex_flow"], sigma), data["ex_x0_from_flow"])
    report.check("latent", "xt", mix(data["ex_x0"], data["ex_noise"], sigma), data["ex_xt"])


def block_scheduler(golden: GoldenSet, name: str, report: Report) -> None:
    """The published split of blocks over GPUs."""
    for index, case in enumerate(json.loads((golden.folder / f"{name}.json").read_text())):
        if case["kind"] == "default":
            split = even_split(case["total"], case["world"])
        else:
            split = rebalance(case["current"], case["rank_times"], case["dit_times"])
        report.check("exact", f"case {index}", [list(part) for part in split], torch.tensor(case["out"]))


def whole_stream(golden: GoldenSet, name: str, report: Report) -> None:
    """From pixels to pixels: two sessions, the second with another prompt."""
    data, meta = golden.case(name)
    config, count = golden.config, meta["step"]
    stream, noise = _stream(
        golden,
        config["num_kv_cache"],
        config["num_sink_tokens"],
        meta["thr"],
        config["t_refresh"],
        count,
        meta["kind"],
    )
    state, means = stream.state, []
    encode = stream.codec.encode
    stream.codec.encode = lambda video, memory: means.append(encode(video, memory)) or means[-1]
    steps = steps_for(stream.spec.schedule, config["noise_scale"], count)
    video = golden.pixels_3THW.split([config["session1_frames"], config["session2_frames"]], dim=1)
    chunk, frames, outputs, firsts = 0, [], [], []
    for session, (prompt, chunks) in enumerate(zip("AB", meta["session_chunks"], strict=True)):
        stream.reset()
        stream.set_prompt(golden.prompts[prompt][0])
        clip = video[session]
        cuts = [0, 5, *range(9, 5 + 4 * chunks + 1, 4)]
        for call, (a, b) in enumerate(pairwise(cuts)):
            opening = call == 0
            noise.next = _recorded(data, session if opening else chunk, opening, stream.batch and not opening)
            noisy, first = stream.encode(clip[:, a:b], steps)
            share = float(state.controller.previous)
            position = state.position
            done = stream.denoise(noisy, first, steps.timesteps, (session, call))
            frames += [(stream.decode(clean).transpose(0, 1) + 1) / 2 for _, clean in done]
            if opening:
                firsts.append(_bcf(done[0][1])[0])
                report.check("mu", f"mu_first {session}", _bcf(means[-1])[0], data["mu_first"][session])
                continue
            outputs += [_bcf(clean)[0] for _, clean in done]
            at = f"chunk {chunk}"
            report.check("mu", f"{at} mu", _bcf(means[-1])[0], data["mu"][chunk])
            report.check("noise_scale", f"{at} noise scale", share, data["noise_scale"][chunk])
            report.check("exact", f"{at} step", first, data["step"][chunk])
            if "call_start_frame" in data:
                row = chunk if stream.batch else chunk * count
                report.check("exact", f"{at} position", position, data["call_start_frame"][row, 0])
            if "call_x0" in data and stream.batch:
                rows = min(call, count)
                report.check("latent", f"{at} x0", _bcf(state.clean_SCFhw[:rows]), data["call_x0"][chunk, :rows])
            if "evict_frames" in data:
                want = data["evict_frames"][chunk]
                got = state.cache.queue_ASQ[:, :count, : want.shape[-1]].expand_as(want)
                report.check("exact", f"{at} queue", got, want)
            chunk += 1
    report.check("latent", "x0_first", torch.stack(firsts), data["x0_first"])
    report.check("latent", "x0", torch.stack(outputs), data["x0"])
    video_T3HW = torch.cat(frames)
    if "frames_sub" in data:
        report.check("frames", "frames_sub", video_T3HW[..., ::4, ::4], data["frames_sub"])
    if "frames_full_last4" in data:
        report.check("frames", "frames_full_last4", video_T3HW[-4:], data["frames_full_last4"])
    report.check("frames", "frame_mean", video_T3HW.double().mean((1, 2, 3)), data["frame_mean"])
    report.check("frames", "frame_std", video_T3HW.double().std((1, 2, 3)), data["frame_std"])


def _recorded(data: dict[str, Tensor], index: int, opening: bool, batch: bool) -> list[Tensor]:
    """The noise of one chunk in the order in which the stream asks for it."""
    suffix = "_first" if opening else ""
    noise = [data[f"enc_noise{suffix}"][index][None]]
    if f"renoise{suffix}" in data:
        noise += _again(data[f"renoise{suffix}"][index], batch)
    return noise


def _again(noise_NFCHW: Tensor, batch: bool) -> list[Tensor]:
    """Noise between steps: all rows together in the stream batch, one step after the other without."""
    return [noise_NFCHW] if batch else list(noise_NFCHW[:, None])


def _stream(
    golden: GoldenSet, slots: int, sinks: int, threshold: float, wrap_at: int | None, steps: int, kind: str
) -> tuple[LocalStream, Replay]:
    noise = Replay()
    config = golden.config
    stream = LocalStream(
        golden.spec(slots, sinks, threshold, wrap_at),
        golden.dit,
        golden.codec(),
        height=config["height"],
        width=config["width"],
        noise=noise,
        rule=Rule.REFERENCE,
        noise_rule=RELEASED,
        batch=kind == "batch",
        max_steps=steps,
    )
    return stream, noise


def _bcf(latents: Tensor) -> Tensor:
    """[..., F, C, h, w], as the vectors are stored, to [..., C, F, h, w] and back."""
    return latents.transpose(-4, -3)
