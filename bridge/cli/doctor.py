"""`tidecast doctor`: checks the machine and says what to do about each finding.

Changes nothing. Torch is checked in a process of its own, because a broken build must not end the check.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bridge.config import AppConfig
from bridge.ipc.frame_ring import FrameRing
from bridge.process.engine.rings import INBOX_DEPTH, OUTBOX_DEPTH
from bridge.process.priority import raised_session, scheduled_by_session
from bridge.video.opening import availability_error, limits
from bridge.video.table import rows
from engine.config import Config as EngineConfig
from engine.errors import SharedMemoryError, TransportError

Level = Literal["ok", "note", "bad"]
GIB = 2**30

_TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda or "", "gpus": []}
if torch.cuda.is_available():
    for n in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(n)
        found["gpus"].append([gpu.name, gpu.total_memory / 2**30, torch.cuda.mem_get_info(n)[0] / 2**30])
print(json.dumps(found))
"""

_MODEL = """
import json, sys
from engine.config import Config
from engine.models import registry, vram
from engine.errors import TidecastError
try:
    config, free = Config.model_validate_json(sys.argv[1]), float(sys.argv[2])
    for package in config.families:
        registry.register(package)
    spec = registry.get(config.model)
    found = {"title": spec.title, "gpu": spec.needs_gpu}
    needed = vram.need_of(spec, config)
    if needed is not None:
        found |= {"bytes": needed.total, "parts": str(needed)}
        found["fits"] = vram.what_fits(spec, config, free) if free else ""
    print(json.dumps(found))
except TidecastError as error:
    print(json.dumps({"error": error.message, "remedy": error.remedy}))
"""


def other_build(backend: str) -> str:
    """How to replace torch by its build for a backend, `auto` or `cpu`."""
    if any(Path(sys.executable).parent.glob("python*._pth")):  # Windows' embeddable Python, which has no pip
        return f"Make this folder again: tidecast bundle windows --gpu {'cpu' if backend == 'cpu' else 'cu130'}"
    return (
        f'Run: "{sys.executable}" -m pip install uv, then '
        f'"{sys.executable}" -m uv pip install --python "{sys.executable}" --torch-backend {backend} --reinstall torch'
    )


ANSWER_S = 120.0
"""Longest wait for a program that loads torch, in s."""

SLOW_START = "Start it again: a virus scanner reads every new library when it is first loaded."

NETWORK_HINT = "Let UDP 5353 (mDNS) and TCP 5960 to 5990 through the firewall to use NDI between machines."


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do about it."""

    level: Level
    what: str
    found: str
    remedy: str = ""


def diagnose(config: AppConfig) -> list[Finding]:
    """Check everything that the configuration needs."""
    findings = [_python()]
    torch = _ask(_TORCH)
    findings += _torch(torch)
    findings += _model(config.engine, torch)
    findings.append(_shared_memory(config.engine.width, config.engine.height))
    findings += _scheduling()
    findings += [*_transports(config), _ffmpeg()]
    findings += _ports(config)
    findings.append(Finding("note", "network", "not tested", NETWORK_HINT))
    return findings


def _python() -> Finding:
    version = sys.version.split()[0]
    if sys.platform == "win32" and sys.version_info < (3, 13):
        remedy = "Its timers have steps of 16 ms on Windows: use Python 3.13 for an even output rate."
        return Finding("note", "python", f"{version} on {sys.platform}", remedy)
    return Finding("ok", "python", f"{version} on {sys.platform}")


def _ask(program: str, *arguments: str) -> dict[str, Any]:
    """Run a small program in a new interpreter and return the JSON object that it prints, or {"error": text}."""
    command = [sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {ANSWER_S:g} s", "remedy": SLOW_START}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]}
    return dict(json.loads(done.stdout))


def _torch(torch: dict[str, Any]) -> Iterable[Finding]:
    if "error" in torch:
        remedy = torch.get("remedy", "Install torch again, in the build that fits this machine.")
        if "WinError 126" in torch["error"]:  # a library that torch's own need; Windows does not bring it
            remedy = "Install Microsoft's Visual C++ Redistributable (x64), then run this again."
        yield Finding("bad", "torch", torch["error"], remedy)
        return
    build = f"CUDA {torch['cuda']}" if torch["cuda"] else "CPU build"
    driver = _driver()
    if torch["cuda"] and not driver and not torch["gpus"]:
        remedy = f"It works, but the build for CPUs is several GB smaller. {other_build('cpu')}"
        yield Finding("note", "torch", f"{torch['version']} ({build}, and no NVIDIA driver)", remedy)
    else:
        yield Finding("ok", "torch", f"{torch['version']} ({build})")
    if driver:
        yield Finding("ok", "NVIDIA driver", driver)
    if torch["gpus"]:
        for name, gib, free in torch["gpus"]:
            yield Finding("ok", "GPU", f"{name}, {gib:.1f} GiB, of which {free:.1f} are free")
    elif driver:
        yield Finding("bad", "GPU", "present, but this build of torch cannot use it", other_build("auto"))
    else:
        remedy = "The model ember runs on a CPU; the larger ones need an NVIDIA GPU."
        yield Finding("note", "GPU", "none that torch can use", remedy)


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "nvidia-smi gives no answer"
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def _model(config: EngineConfig, torch: dict[str, Any]) -> Iterable[Finding]:
    """Whether the model runs here, and fits into the memory that is free on the GPUs that the configuration names."""
    free = [gib for _, _, gib in torch.get("gpus", [])]
    used = free[: max(1, len(config.devices))]
    least = min(used, default=0.0)
    model = _ask(_MODEL, config.model_dump_json(), str(least * GIB))
    what = f"model {config.model}"
    if "error" in model:
        yield Finding("bad", what, model["error"], model.get("remedy", ""))
        return
    needs = f"{model['title']}; needs {model['parts']}" if "parts" in model else model["title"]
    if len(config.devices) > 1:
        needs += f" on each of {len(config.devices)} GPUs"
    if model["gpu"] and not free:
        yield Finding("bad", what, needs, "Choose a smaller model (tidecast models list) or another GPU.")
    elif sys.platform == "win32" and len([name for name in config.devices if name.startswith("cuda")]) > 1:
        remedy = "Several GPUs cannot share a model on Windows, which has no NCCL. Use one GPU, WSL 2 or Linux."
        yield Finding("bad", what, needs, remedy)
    elif len(config.devices) > len(free) and model["gpu"]:
        yield Finding("bad", what, needs, f"{len(free)} GPUs are here; choose a preset for one (tidecast plan).")
    elif free and model.get("bytes", 0.0) > least * GIB:
        yield Finding("bad", what, needs, model["fits"])
    else:
        yield Finding("ok", what, needs)


def _scheduling() -> Iterable[Finding]:
    """On Linux: whether other programs can hold up the picture."""
    if not sys.platform.startswith("linux"):
        return
    with raised_session() as raised:
        if raised or not scheduled_by_session():
            yield Finding("ok", "scheduling", "frames precede other programs")
        else:
            remedy = "Beside busy programs it can pause for a second: sudo sysctl kernel.sched_autogroup_enabled=0"
            yield Finding("note", "scheduling", "by sessions; Tidecast may not raise the priority of its own", remedy)


def _shared_memory(width: int, height: int) -> Finding:
    """Reserve the frame rings to and from the engine, as `run` will."""
    try:
        with FrameRing(width, height, INBOX_DEPTH) as to_engine, FrameRing(width, height, OUTBOX_DEPTH) as from_engine:
            mib = (to_engine.bytes + from_engine.bytes) / 2**20
    except SharedMemoryError as error:
        return Finding("bad", "shared memory", error.message, error.remedy)
    return Finding("ok", "shared memory", f"{mib:.0f} MiB for frames of {width}x{height} can be reserved")


def _transports(config: AppConfig) -> Iterable[Finding]:
    used = {uri.partition(":")[0] for uri in (config.input.uri, *config.output.uris)}
    for row in rows():
        name = f"{row.scheme}:"
        if row.platforms and sys.platform not in row.platforms:
            level: Level = "bad" if row.scheme in used else "note"
            yield Finding(level, name, f"does not work on {sys.platform}", row.elsewhere)
        elif error := availability_error(row.scheme):
            yield Finding("bad" if row.scheme in used else "note", name, error.message, error.remedy)
        else:
            yield Finding("ok", name, row.what)
            yield from _limits(row.scheme)


def _limits(scheme: str) -> Iterable[Finding]:
    try:
        for found, remedy in limits(scheme):
            yield Finding("note", f"{scheme}:", found, remedy)
    except TransportError as error:
        yield Finding("note", f"{scheme}:", error.message, error.remedy)


def _ffmpeg() -> Finding:
    import av

    return Finding("ok", "video files", f"PyAV {av.__version__}")


def _ports(config: AppConfig) -> Iterable[Finding]:
    wanted: list[tuple[str, str, int, int, str]] = []
    if config.osc.enabled and config.osc.port:
        wanted.append(("OSC", config.osc.host, config.osc.port, socket.SOCK_DGRAM, "--osc-port"))
    web = config.web
    if web.port and (web.enabled or (web.oscquery and config.osc.enabled)):
        name = "page" if web.enabled else "OSCQuery"
        wanted.append((name, web.host, web.port, socket.SOCK_STREAM, "--web-port"))
    for name, host, port, kind, option in wanted:
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM and sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                yield Finding("bad", f"port {port} ({name})", str(error), f"Stop the other program, or use {option}.")
                continue
        yield Finding("ok", f"port {port} ({name})", f"free on {host}")
