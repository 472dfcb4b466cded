"""Operation counts against published sizes, and pipeline forecasts against the paper's figures."""

from __future__ import annotations

import json
from statistics import median

import pytest

from bridge.cli.plan import limit_times, measured_times, outlook, parse_gpus, parse_size, plan
from engine.errors import ConfigError
from engine.models.registry import get
from engine.network.dit_shape import DiTShape
from engine.planning import predict, roofline

SMALL = DiTShape(1536, 12, 30, 8960)
LARGE = DiTShape(5120, 40, 40, 13824)


def test_counts_agree_with_the_published_parameters():
    assert roofline.dit_parameters(SMALL) == pytest.approx(1.419e9, rel=1e-3)
    assert roofline.dit_parameters(LARGE) == pytest.approx(14.288e9, rel=1e-3)


def test_full_vae_costs_more_than_the_small_network():
    vae = roofline.vae_encode_flops(512, 512) + roofline.vae_decode_flops(512, 512)
    assert vae == pytest.approx(14.15e12, rel=0.01)
    assert vae > roofline.dit_flops(SMALL, 1024, 6 * 1024) * 2


def test_forecast_matches_the_paper_for_several_gpus():
    errors = sorted(abs(got / want - 1) for *_, got, want in predict.check())
    assert median(errors) < 0.03 and errors[int(0.9 * len(errors))] < 0.06


def test_more_gpus_never_slow_down_a_forecast():
    times = predict.fit_single(predict.PUBLISHED[0].fps[0], 480, 832, 146e12)
    rates = [predict.forecast([times] * n, 30, 2, hop_s=0.0).fps for n in (1, 2, 3, 4)]
    assert rates == sorted(rates)


def test_bottleneck_is_named():
    times = predict.StageTimes(0.01, 0.5, 0.01, 0.01, "measured")
    assert predict.forecast([times] * 2, 30, 1).bottleneck.startswith("decode on GPU")


def test_a_clean_pass_is_a_row_more_and_no_further_forward():
    assert roofline.chunk_forwards(4) == (1, 4)
    assert roofline.chunk_forwards(4, batch=False) == (4, 4)
    assert roofline.chunk_forwards(4, clean_pass=True) == (4, 5)
    assert roofline.chunk_forwards(4, clean_pass=True, fused=False) == (5, 5)
    times = predict.StageTimes(0.01, 0.02, 0.005, 0.03, "measured")
    with_pass = predict.alone(times, 30, 2, clean_pass=True, chunk=12, input_fps=30)
    without = predict.alone(times, 30, 2, clean_pass=False, chunk=12, input_fps=30)
    assert 12 / with_pass.fps == pytest.approx(0.03 + 2 * 0.005 + 3 * 0.03)
    assert 12 / without.fps == pytest.approx(0.03 + 2 * 0.005 + 2 * 0.03)
    assert with_pass.latency_s == pytest.approx(12 / 30 + 12 / with_pass.fps)
    assert with_pass.bottleneck == "network on GPU 1" and with_pass.placement.split == ((0, 30),)


def test_the_plan_of_a_model_with_a_clean_pass(capsys):
    found = {}
    for model in ("wan21-1.3b", "causal-2step-1.3b", "self-forcing-1.3b"):
        plan("H100", model=model, size="832x480", fps=25, latency=400, measured=None, tiny=True)
        found[model] = capsys.readouterr().out
    assert "published" in found["wan21-1.3b"] and "published" not in found["self-forcing-1.3b"]
    steps = [line.split()[3] for line in found["causal-2step-1.3b"].splitlines() if " limit " in line]
    assert steps == ["1", "2"], "it knows two steps"
    frames, spec = 3, get("self-forcing-1.3b")
    times = limit_times(spec, 832, 480, predict.GPUS["H100"], tiny=True)
    row = roofline.dit_flops(SMALL, frames * 1560, 21 * 1560) / predict.GPUS["H100"].ceiling.flops
    network = 4 * times.call_s + 5 * row
    assert 12 / outlook(spec, [times], 4, 25).fps == pytest.approx(network + times.encode_s + times.decode_s)
    with pytest.raises(ConfigError, match="runs on one GPU"):
        plan("2xH100", model="self-forcing-1.3b")


def test_the_plan_counts_the_memory_of_loras(tmp_path, capsys):
    file = tmp_path / "noir.safetensors"
    file.write_bytes(bytes(2**26))
    memory = []
    for loras in (None, [file]):
        plan("RTX4090", model="wan21-1.3b", size="512x512", fps=30, latency=400, measured=None, tiny=True, lora=loras)
        (line,) = (line for line in capsys.readouterr().out.replace("\n", " ").split("- ") if "memory at" in line)
        memory.append(line)
    assert "lora" not in memory[0] and "lora 2.7" in memory[1]


def test_an_unpublished_model_has_a_remedy():
    with pytest.raises(ConfigError, match="bench engine"):
        predict.published_times("ember", 512, 512, predict.GPUS["H100"])


def test_gpus_and_sizes_are_parsed():
    assert [g.name for g in parse_gpus("2xRTX4090, h100")] == ["RTX4090", "RTX4090", "H100"]
    assert parse_size("832x480") == (832, 480)
    for bad in ("3xVoodoo2", "", "99xH100"):
        with pytest.raises(ConfigError):
            parse_gpus(bad)
    for bad in ("512", "500x512", "0x0"):
        with pytest.raises(ConfigError):
            parse_size(bad)


def test_measured_file_is_used(tmp_path):
    rows = [
        {
            "model": "m",
            "width": 512,
            "height": 512,
            "steps": n,
            "stages_ms": {"encode": 5, "dit": 10 + 4 * n, "decode": 9},
        }
        for n in (1, 2)
    ]
    rows += [row | {"model": "c", "stages_ms": {"encode": 5, "dit": 2 + 6 * row["steps"], "decode": 9}} for row in rows]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"rows": rows}))
    times = measured_times(path, "m", 512, 512)
    assert times.network_s(3) == pytest.approx(0.022) and times.decode_s == pytest.approx(0.009)
    cleaned = measured_times(path, "c", 512, 512, clean_pass=True)  # 4 n + 2 (n + 1) ms
    assert (cleaned.call_s, cleaned.row_s) == (pytest.approx(0.004), pytest.approx(0.002))
    with pytest.raises(ConfigError, match="no stage times"):
        measured_times(path, "other", 512, 512)
