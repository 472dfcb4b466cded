"""Benchmarks run, report their figures, and can be compared. The measured times themselves are not tested."""

from __future__ import annotations

import json
import math
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest
import torch

from engine.bench import engine, gpu, gpu_check, reference, report, versus
from engine.bench.engine import COLUMNS, Ask, measure
from engine.config import Config
from engine.errors import ConfigError, ModelError
from engine.models.taehv.vae import TinyShape
from engine.models.wan21 import build


def test_a_model_is_timed_frame_to_frame(tmp_path, capsys):
    config = Config(model="wan21-tiny", width=64, height=64, device="cpu", vae="tiny")
    rows = measure(config, [Ask(steps=2, chunks=4, input_fps=120.0)])
    report.show("engine", rows, COLUMNS, path=tmp_path / "out.json")
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last == json.loads((tmp_path / "out.json").read_text())
    row = last["rows"][0]
    assert row["weights"] == "random" or row["weights"] == "released"
    assert row["fps"] > 0 and 0 < row["of_limit"]["network"] < 1.5
    assert set(row["stages_ms"]) == {"upload", "encode", "dit", "decode", "download"}
    assert row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]


@pytest.mark.parametrize("missing", ["models", "diffusers"])
def test_the_comparison_names_every_package_that_it_needs(missing, monkeypatch):
    if missing == "diffusers":  # the published implementation is there, what it imports is not

        class Absent(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.startswith("models"):
                    raise ModuleNotFoundError("No module named 'diffusers'")

        monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    elif reference.installed():
        pytest.skip("it is installed")
    with pytest.raises(ModelError, match=missing) as raised:
        versus.run(versus.CPU_CASES[0], torch.device("cpu"), torch.float32)
    assert '".[versus]"' in raised.value.remedy and "streamdiffusionv2" in raised.value.remedy
    documents = [path.read_text() for path in Path("docs").glob("*.md")]
    assert any(reference.INSTALL in text for text in documents)


def test_every_mode_has_its_tolerances() -> None:
    assert gpu_check.MODES.keys() == gpu_check.RELATIVE_RMS.keys() == gpu_check.PSNR_DB.keys()
    assert gpu_check.MODES["full-fp8"] == gpu_check.MODES["full"] | {"weights_dtype": "float8"}


@pytest.mark.parametrize("mode", ["eager", "graphs", "fp8"])
def test_a_mode_is_compared_with_the_cpu_in_full_precision(mode):
    row = gpu_check.check(torch.device("cpu"), torch.bfloat16, mode, 2, 32, vae="tiny")
    assert 0 < row["relative_rms"] < gpu_check.RELATIVE_RMS[mode]


def test_wrong_results_of_a_device_are_noticed(monkeypatch):
    real = gpu_check.play

    def wrong(stream, steps):
        factor = 1.2 if stream.dtype == torch.bfloat16 else 1
        return tuple(x * factor for x in real(stream, steps))

    monkeypatch.setattr(gpu_check, "play", wrong)
    gpu_check.exact.cache_clear()
    with pytest.raises(ModelError, match="differs from the CPU"):
        gpu_check.check(torch.device("cpu"), torch.bfloat16, "eager", 1, 32, vae="tiny")


def test_the_gpu_script_runs_every_part_and_continues_after_a_row_that_fails(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_check.quantise, "check", lambda *_, **__: (_ for _ in ()).throw(ModelError("too old")))
    monkeypatch.setattr(build, "TinyShape", lambda: TinyShape(encoder=8, decoder=(16, 8, 8, 8), blocks=1))
    parts = "machine,waits,float8,engine,kernels,beside,capture"
    asked = f"gpu --device cpu --parts {parts} --modes eager,graphs,fp8 --sizes 32x32 --vaes tiny --steps 2 --chunks 2"
    files = ["--json", str(tmp_path / "out.json"), "--lines", str(tmp_path / "lines")]
    monkeypatch.setattr("sys.argv", [*asked.split(), *files])
    with pytest.raises(SystemExit):
        gpu.main()
    rows = report.read(tmp_path / "out.engine.json")["rows"]
    assert [row["mode"] for row in rows] == ["eager", "graphs", "fp8"]
    assert all(row["fps"] > 0 for row in rows[:2]) and rows[2]["failed"] == "ModelError"
    assert [row["captured"] for row in report.read(tmp_path / "out.waits.json")["rows"]] == [3, 4, 6]
    stages = {row["stage"] for row in report.read(tmp_path / "out.kernels.json")["rows"] if row["kernel"] == "all"}
    assert stages == {"encode", "forward", "decode"}
    assert report.read(tmp_path / "out.beside.json")["rows"][0]["upload_ms"] > 0
    assert "wait" in report.read(tmp_path / "out.capture.json")["rows"][0]["error"]
    written = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert {line["part"] for line in written} == {
        "machine",
        "waits",
        "float8",
        "engine",
        "kernels",
        "beside",
        "capture",
    }
    assert "too old" in capsys.readouterr().out.split("FAILED")[1]


def test_the_gpu_script_takes_minutes_unless_it_is_asked_for_more(monkeypatch, capsys):
    """The dear parts (14B, torch's compiler) run only if they are named."""
    ran: list[tuple[str, ...]] = []

    def noted(part):
        def run(*arguments):
            ran.append((part, *(str(value) for value in arguments if isinstance(value, str | int))))
            return {}

        return run

    monkeypatch.setattr(gpu.gpu_parts, "machine", noted("machine"))
    monkeypatch.setattr(gpu, "check", noted("check"))
    monkeypatch.setattr(gpu, "waits", noted("waits"))
    monkeypatch.setattr(gpu, "measure", lambda *_: pytest.fail("a model is measured"))
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--threads", "1"])
    gpu.main()
    assert threads == [1]
    counts = ("1", "2", "4")
    assert ran == [
        ("machine",),
        *(("check", mode, count, "32", "full") for mode in ("eager", "graphs") for count in counts),
        *(("waits", count, "32", "full") for count in counts),
    ]


def test_the_peak_of_a_gpus_memory_counts_what_torch_reserved(monkeypatch):
    """The pools of CUDA graphs are not among the allocated bytes."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 11 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 15 * 2**30)
    assert engine._memory(torch.device("cuda")) == 15.0


def test_two_files_are_compared(tmp_path, capsys):
    rows = [{"model": "m", "steps": 1, "fps": 10.0, "stages_ms": {"dit": 4.0}}]
    report.show("x", rows, {"model": "model"}, path=tmp_path / "a.json")
    report.show("x", [rows[0] | {"fps": 15.0}], {"model": "model"}, path=tmp_path / "b.json")
    capsys.readouterr()
    report.compare(tmp_path / "a.json", tmp_path / "b.json")
    assert "1.50" in capsys.readouterr().out
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no benchmark"):
        report.compare(tmp_path / "a.json", tmp_path / "c.json")


def test_percentiles():
    assert report.percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert math.isnan(report.percentile([], 0.5))


def test_a_system_that_does_not_count_its_load_is_described_without_it(monkeypatch):
    """As on Windows with its performance counters disabled."""

    def refuse():
        raise RuntimeError("PdhAddEnglishCounterW failed. Performance counters may be disabled.")

    monkeypatch.setattr(report.psutil, "getloadavg", refuse)
    assert report.machine()["load"] is None and report.machine()["cores"]
