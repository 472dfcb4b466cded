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
from typing import Any, Literal

from bridge.config import AppConfig
from bridge.ipc.frame_ring import FrameRing
from bridge.process.supervisor import INBOX_DEPTH, OUTBOX_DEPTH
from bridge.video.opening import availability_error
from bridge.video.table import rows
from engine.errors import SharedMemoryError

Level = Literal["ok", "note", "bad"]

_TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda or "", "gpus": []}
if torch.cuda.is_available():
    for n in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(n)
        found["gpus"].append([gpu.name, gpu.total_memory / 2**30])
print(json.dumps(found))
"""

_MODEL = """
import json, sys
from engine.models.registry import get
from engine.errors import TidecastError
try:
    spec = get(sys.argv[1])
    print(json.dumps({"title": spec.title, "vram": spec.vram_gib, "gpu": spec.needs_gpu}))
except TidecastError as error:
    print(json.dumps({"error": error.message, "remedy": error.remedy}))
"""


def other_build(backend: str) -> str:
    """How to replace torch by its build for a backend, `auto` or `cpu`."""
    return (
        f'Run: "{sys.executable}" -m pip install uv, then '
        f'"{sys.executable}" -m uv pip install --python "{sys.executable}" --torch-backend {backend} --reinstall torch'
    )


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
    findings += _model(config.engine.model, torch)
    findings.append(_shared_memory(config.engine.width, config.engine.height))
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
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]}
    return dict(json.loads(done.stdout))


def _torch(torch: dict[str, Any]) -> Iterable[Finding]:
    if "error" in torch:
        yield Finding("bad", "torch", torch["error"], "Install torch again, in the build that fits this machine.")
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
        for name, gib in torch["gpus"]:
            yield Finding("ok", "GPU", f"{name}, {gib:.1f} GiB")
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
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def _model(name: str, torch: dict[str, Any]) -> Iterable[Finding]:
    model = _ask(_MODEL, name)
    if "error" in model:
        yield Finding("bad", f"model {name}", model["error"], model.get("remedy", ""))
        return
    needs = f"{model['title']}; needs {model['vram']:.0f} GiB" if model["vram"] else model["title"]
    largest = max((gib for _, gib in torch.get("gpus", [])), default=0.0)
    if model["gpu"] and largest < model["vram"]:
        yield Finding("bad", f"model {name}", needs, "Choose a smaller model (tidecast models list) or another GPU.")
    else:
        yield Finding("ok", f"model {name}", needs)


def _shared_memory(width: int, height: int) -> Finding:
    """Reserve the frame rings to and from the engine, as `run` will."""
    try:
        with FrameRing(width, height, INBOX_DEPTH) as to_engine, FrameRing(width, height, OUTBOX_DEPTH) as from_engine:
            mib = (to_engine.bytes + from_engine.bytes) / 2**20
    except SharedMemoryError as error:
        return Finding("bad", "shared memory", error.message, error.remedy)
    return Finding("ok", "shared memory", f"{mib:.0f} MiB for frames of {width}x{height} can be reserved")


def _transports(config: AppConfig) -> Iterable[Finding]:
    used = {uri.partition(":")[0] for uri in (config.input.uri, config.output.uri)}
    for row in rows():
        name = f"{row.scheme}:"
        if row.platforms and sys.platform not in row.platforms:
            level: Level = "bad" if row.scheme in used else "note"
            yield Finding(level, name, f"does not work on {sys.platform}", row.elsewhere)
        elif error := availability_error(row.scheme):
            yield Finding("bad" if row.scheme in used else "note", name, error.message, error.remedy)
        else:
            yield Finding("ok", name, row.what)


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
