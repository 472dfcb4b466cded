"""The command line: it says what is wrong and what to do, and never shows a traceback."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bridge.cli import doctor
from bridge.cli import main as command
from bridge.cli.bench import Benches
from bridge.cli.doctor import diagnose
from bridge.cli.main import app
from bridge.cli.status import styled
from bridge.cli.terminal import PrintableConsole
from bridge.config_file import load, start_controls
from engine.errors import ConfigError, TransportError

NEEDED = dict(os.environ) if sys.platform == "win32" else {}
"""Windows starts no program without the variables of its own."""


def tidecast(*arguments: str, timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "TERM": "dumb"} | NEEDED,
    )


STARTED = ("--osc-port", "0", "--no-web", "--output", "null:")


def in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """Run the command up to its end; returns its exit code and what it wrote."""
    monkeypatch.setattr(sys, "argv", ["tidecast", *arguments])
    monkeypatch.setattr(command.multiprocessing, "active_children", list)  # those of other tests are not its own
    monkeypatch.setattr(command, "keep_memory", lambda: None)
    with pytest.raises(SystemExit) as ended:
        command.main()
    written = capsys.readouterr()
    return ended.value.code, written.out + written.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config", "nope"), ("nope", "laptop")),
        (("--size", "big"), ("big", "512x512")),
        (("--size", "500x500"), ("500", "multiple of 16")),
        (("--set", "osc.prot=1"), ("prot", "port")),
        (("--set", "nonsense"), ("nonsense", "output.fps=25")),
        (("--input", "pattern:bars", "--set", "input=5"), ("input = 5", "input is a section", "output.fps=25")),
    ],
)
def test_a_mistake_is_found_before_anything_is_started(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(command, "serve", lambda *_, **__: pytest.fail("it was started"))
    code, written = in_this_process(monkeypatch, capsys, "run", *arguments)
    said = " ".join(written.split())
    assert code == 2, said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--input", "tape:1", *STARTED), ("tape:1", "ndi:")),
        (("run", "--input", "file:/no/such.mp4", *STARTED), ("such.mp4",)),
        (("demo", "/no/such.mp4"), ("such.mp4",)),
    ],
)
def test_a_mistake_ends_with_a_sentence_and_code_2(arguments, words):
    done = tidecast(*arguments)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, said
    assert "Traceback" not in said
    for word in words:
        assert word in said


HUGE = "1" + "0" * 5000


NAMED = pytest.mark.skipif(
    sys.platform == "win32", reason="there Python takes ~NAME for the folder NAME beside the user's own"
)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["input=5"], ("input = 5", "section")),
        (["input=5", "input.uri=ndi:A"], ("input = 5", "section")),
        (["input=5", "input.other=1"], ("input.other", "input is 5", "section")),
        (["input.uri=ndi:A", "input=5"], ("input = 5", "section")),
        (["input.uri.x=5", "input.uri=ndi:A"], ("input.uri",)),
        (["input.uri=ndi:A", "input.uri.x=5"], ("input.uri is 'ndi:A'", "section")),
        (["controls=5"], ("controls = 5",)),
        (["controls.prompt_1.x=2"], ("prompt_1", "not text")),
        (["engine=[1]"], ("engine = [1]", "section")),
        (["=5"], ("--set '=5'", "output.fps=25")),
        (["a..b=1"], ("--set 'a..b=1'", "output.fps=25")),
        ([".=1"], ("--set '.=1'",)),
        ([f"osc.port={HUGE}"], ("osc.port", "'1000")),
        ([f"osc.port=0x{'f' * 5000}"], ("osc.port", "a huge number")),
        ([f"controls.steps={HUGE}"], ("steps", "not a number")),
        ([f"controls.steps=0x{'f' * 5000}"], ("steps", "not a number")),
        (["osc.port=" + "[" * 5000], ("osc.port",)),
        (["output.fps=1\nb=2"], ("output.fps", "'1\\nb=2'")),
        (["output.fps=nan"], ("output.fps", "nan")),
        (['osc.host="a\\u0000b"'], ("osc.host", "control characters")),
        (['web.host="\\u001b[2J"'], ("web.host", "control characters")),
        (['input.extra_ips=["1.2.3.4\\n"]'], ("input.extra_ips", "control characters")),
        pytest.param(
            ["storage.record_dir=~nobody-of-this-name/x"], ("storage.record_dir", "no such user"), marks=NAMED
        ),
        pytest.param(["storage.state_dir=~nobody-of-this-name/x"], ("storage.state_dir", "no such user"), marks=NAMED),
        (["x\x1b]0;t\x07=1"], ("unknown key",)),
    ],
)
def test_no_setting_ends_with_a_traceback(settings, words):
    result = CliRunner().invoke(app, ["run", *(part for setting in settings for part in ("--set", setting))])
    assert isinstance(result.exception, ConfigError), result.exception
    said = str(result.exception)
    assert len(said) < 400
    for word in words:
        assert word in said


@NAMED
def test_a_folder_of_nobody_is_named():
    result = CliRunner().invoke(app, ["midi", "list", "--state-dir", "~nobody-of-this-name/x"])
    assert isinstance(result.exception, ConfigError), result.exception
    assert "no such user" in str(result.exception)


def test_a_mistake_is_written_as_it_stands_whatever_the_terminals_width(monkeypatch, capsys):
    monkeypatch.setattr(command, "err", PrintableConsole(stderr=True, width=30))
    name = "a long name that [bold] nobody gave to a preset"
    _, written = in_this_process(monkeypatch, capsys, "run", "--config", name)
    assert f"There is no configuration '{name}'.\n" in written


def test_a_model_that_does_not_exist_is_named():
    done = tidecast(
        "run",
        "--model",
        "nope",
        "--input",
        "pattern:bars",
        "--output",
        "null:",
        "--osc-port",
        "0",
        "--no-web",
        "--web-port",
        "0",
    )
    assert done.returncode == 2
    assert "nope" in done.stderr
    assert "wan21-1.3b" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named_with_the_way_out():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        done = tidecast("run", "--input", "pattern:bars", "--output", "null:", "--osc-port", str(port), "--no-web")
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "--osc-port" in done.stderr


def test_help_lists_every_command(monkeypatch, capsys):
    code, said = in_this_process(monkeypatch, capsys, "--help")
    assert code == 0
    for name in ("run", "demo", "sources", "doctor", "osc", "midi", "models", "td", "bench", "plan"):
        assert re.search(rf"\b{name}\b", said), name


def test_the_bridge_does_not_load_torch():
    """It must start at once, and leave the memory to the engine's process."""
    program = "import sys, bridge.cli.main, bridge.app; print(any(m in sys.modules for m in ('torch', 'transformers')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


INTERRUPTED = """
import os, signal, threading
from types import SimpleNamespace
from bridge import app
from bridge.cli import main as cli
from bridge.config_file import load

class Quiet:  # in the place of the whole bridge
    failure, supervisor = "", SimpleNamespace(state="loading")
    def __init__(self, config): self.quit = threading.Event()
    def start(self): pass
    def stop(self): pass

class Hurried:  # a status line that is shown without a pause: the thread is always about to wait
    period_s = 0.0
    def __init__(self, *rest): pass
    def __enter__(self): return self
    def __exit__(self, *rest): pass
    def show(self): pass

app.App, cli.StatusLine, cli.introduction = Quiet, Hurried, lambda bridge: ""
config = load(None)
for number in range(12):
    threading.Timer(0.05 + 0.0007 * number, os.kill, (os.getpid(), signal.SIGINT)).start()
    cli.serve(config, plain=True)
print("ended")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_ctrl_c_ends_it_at_any_instruction():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=90)
    assert done.stdout.split()[-1:] == ["ended"], done.stderr


def test_doctor_has_a_remedy_for_everything_that_is_wrong(monkeypatch):
    ask = doctor._ask  # torch is asked in another process, the model here
    monkeypatch.setattr(doctor, "_ask", lambda program, *rest: (ask_here if rest else ask)(program, *rest))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        findings = diagnose(load(None, {"osc.port": port, "engine.model": "wan21-14b", "web.enabled": False}))
    by_name = {finding.what: finding for finding in findings}
    assert by_name[f"port {port} (OSC)"].level == "bad"
    assert by_name["torch"].level == "ok"
    assert by_name["ndi:"].level == "ok"
    assert by_name["model wan21-14b"].level == "bad"  # no GPU here; 59 GiB and more are rare anywhere
    assert all(finding.remedy for finding in findings if finding.level == "bad")


def test_doctor_tries_to_reserve_the_memory_for_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ask", lambda *_: {"error": "not asked here"})  # loads torch, seconds each time
    config = load(None, {"engine.model": "ember", "engine.width": 1280, "engine.height": 720})
    (finding,) = [finding for finding in diagnose(config) if finding.what == "shared memory"]
    assert (finding.level, finding.found) == ("ok", "74 MiB for frames of 1280x720 can be reserved")

    if sys.platform != "linux":
        return

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    (finding,) = [finding for finding in diagnose(config) if finding.what == "shared memory"]
    assert finding.level == "bad" and "37 MiB" in finding.found and finding.remedy


def ask_here(program: str, *arguments: str) -> dict[str, Any]:
    """What `doctor._ask` returns, without another process that loads torch."""
    printed = io.StringIO()
    before, sys.argv = sys.argv, ["-c", *arguments]
    try:
        with contextlib.redirect_stdout(printed):
            exec(program, {})
    finally:
        sys.argv = before
    return dict(json.loads(printed.getvalue()))


@pytest.mark.parametrize(
    ("free", "settings", "level", "said"),
    [
        ([22.0], {}, "ok", "GiB (weights 2.6,"),
        ([15.0], {}, "bad", 'It fits at 832x480 with vae = "light", max_steps = 2:'),
        ([4.0], {}, "bad", "Choose a smaller model"),
        ([], {}, "bad", "Choose a smaller model"),
        ([23.0], {"engine.devices": ["cuda:0", "cuda:1"]}, "bad", "1 GPUs are here"),
        ([22.0, 22.0], {"engine.devices": ["cuda:0", "cuda:1"]}, "ok", "on each of 2 GPUs"),
    ],
)
def test_doctor_compares_the_memory_of_the_settings_with_what_is_free(free, settings, level, said, monkeypatch):
    monkeypatch.setattr(doctor, "_ask", ask_here)
    monkeypatch.setattr(sys, "platform", "linux")
    config = load("gpu-24", settings).engine
    torch = {"gpus": [["RTX", 24.0, gib] for gib in free]}
    (finding,) = doctor._model(config, torch)
    assert finding.level == level
    assert said in finding.found + finding.remedy
    if len(config.devices) > 1:
        monkeypatch.setattr(sys, "platform", "win32")
        (finding,) = doctor._model(config, torch)
        assert finding.level == "bad" and "on Windows, which has no NCCL" in finding.remedy


@pytest.mark.parametrize(
    ("cuda", "gpus", "driver", "wanted"),
    [
        ("", [], "", {"torch": "ok", "GPU": "note"}),
        ("13.0", [["RTX", 24.0, 23.1]], "590.1", {"torch": "ok", "NVIDIA driver": "ok", "GPU": "ok"}),
        ("", [], "590.1", {"torch": "ok", "NVIDIA driver": "ok", "GPU": "bad --torch-backend auto"}),
        ("13.0", [], "", {"torch": "note --torch-backend cpu", "GPU": "note"}),
    ],
)
def test_doctor_names_the_command_for_the_build_of_torch_that_fits(cuda, gpus, driver, wanted, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # of no portable folder, which is made again
    findings = {f.what: f for f in doctor._torch({"version": "2.13.0", "cuda": cuda, "gpus": gpus})}
    assert findings.keys() == wanted.keys()
    for what, words in wanted.items():
        level, _, command = words.partition(" ")
        assert findings[what].level == level
        assert command in findings[what].remedy and ("--torch-backend" in findings[what].remedy) == bool(command)


def test_doctor_says_where_the_runtime_that_torch_needs_on_windows_comes_from() -> None:
    error = 'OSError: [WinError 126] The specified module could not be found. Error loading "c10.dll"'
    (finding,) = doctor._torch({"error": error})
    assert "Visual C++ Redistributable" in finding.remedy


def test_doctor_waits_for_torch_only_so_long_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_S", 0.01)
    answer = doctor._ask("import time; time.sleep(60)")
    (finding,) = doctor._torch(answer)
    assert finding.level == "bad" and "no answer" in finding.found and "again" in finding.remedy
    (finding,) = doctor._model(load(None, {}).engine, {})
    assert finding.level == "bad" and "no answer" in finding.found and "again" in finding.remedy


def test_doctor_says_what_works_worse_than_it_could(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = ("Pictures go through main memory.", "Choose another adapter.")
    monkeypatch.setattr(doctor, "limits", lambda scheme: [slow])
    assert list(doctor._limits("spout")) == [doctor.Finding("note", "spout:", *slow)]

    def fails(scheme: str) -> None:
        raise TransportError("No OpenGL context.", "Check the graphics driver.")

    monkeypatch.setattr(doctor, "limits", fails)
    (finding,) = doctor._limits("spout")
    assert finding.level == "note" and "OpenGL" in finding.found and "driver" in finding.remedy


def test_doctor_does_not_send_the_portable_folder_to_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python313._pth").write_text("")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python.exe"))
    assert doctor.other_build("auto") == "Make this folder again: tidecast bundle windows --gpu cu130"


def test_a_command_that_is_not_installed_is_named_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Benches.parts, "flood", ("bridge.no_such_module", "flood", "Not here."))
    result = CliRunner().invoke(app, ["bench", "flood", "--seconds", "1"])
    assert isinstance(result.exception, ConfigError)
    assert (
        result.exception.message == "tidecast bench flood is for developers and is not part of the installed package."
    )
    assert result.exception.remedy == "Run it in a checkout: python3 -m bridge bench flood"


@pytest.mark.parametrize("width", range(60, 101, 5))
@pytest.mark.parametrize("target", ["", "held", "late", "missed"])
def test_the_status_line_fits_the_terminal_and_keeps_what_matters(width: int, target: str) -> None:
    now = {
        "state": "running",
        "target": target,
        "fps_in": 30.0,
        "fps_out": 29.97,
        "fps_engine": 9.6,
        "latency": 1234.0,
        "dropped": 123456,
        "vram": 11.5,
        "recording": "/videos/show.mp4",
        "prompt": "a forest in autumn, 森",
        "message": "4 steps are too many here: 2 fit.",
    }
    line = styled(now, width)
    assert line.cell_len <= width
    for part in ("running", "latency 1234 ms", "REC", "4 steps"):
        assert part in line.plain
    assert (f"({target})" in line.plain) == (target in ("late", "missed"))
    assert len(styled(now).plain) > 150, "a log has everything"


def test_the_size_may_be_measured_and_one_that_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    monkeypatch.setattr(command, "serve", lambda config, plain, **rest: served.append(config))
    ember = ["run", "-m", "ember"]
    for words in (["demo"], ["demo", "--size", "512x288"], [*ember, "--size", "Auto"], ember):
        assert CliRunner().invoke(app, words).exit_code == 0, words
    sizes = [start_controls(config).value("engine_size") for config in served]
    assert sizes == ["336x192", "512x288", "auto", "256x256"]


def test_demo_takes_what_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    served = []
    monkeypatch.setattr(command, "serve", lambda config, plain, **rest: served.append(config))
    words = ["--input", "pattern:bars", "--size", "128x192", "--midi", "--osc-host", "0.0.0.0"]
    assert CliRunner().invoke(app, ["demo", *words]).exit_code == 0
    (config,) = served
    assert (config.input.uri, config.engine.width, config.engine.height) == ("pattern:bars", 128, 192)
    assert config.midi.enabled and config.osc.host == "0.0.0.0" and config.engine.model == "ember"
    assert isinstance(CliRunner().invoke(app, ["demo", "a.mp4", "--input", "pattern:bars"]).exception, ConfigError)


@pytest.mark.parametrize("level", ["ok", "bad"])
def test_doctor_ends_with_what_to_run(level: doctor.Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda config: [doctor.Finding(level, "x", "y")])
    done = CliRunner().invoke(app, ["doctor", "-c", "demo"])
    last = done.stdout.strip().splitlines()[-1]
    if level == "ok":
        assert (done.exit_code, last) == (0, "Ready. Run this: tidecast run -c demo")
    else:
        assert done.exit_code == 1 and last.startswith("Not ready: mend what is marked bad (1)")
