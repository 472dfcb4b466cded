"""Everything that a card can tell, in a quarter of an hour: what was never run on a GPU, the surest part first.

Each part is a process of its own with a time-out, because a failed capture or a hanging kernel spoils the process in
which it happens. Every row is appended to one file as soon as it is measured, so that nothing is lost if the run is cut
off. At the end the faults that a reading of the code found are judged by the rows.

The file: one JSON object a line. `{"part", "row"}` is a measurement, `{"part", "ended", "seconds", "tail"}` the end of
a part, `{"verdicts"}` the last line. After a quarter of an hour, unless more is allowed, the run ends, so that rented
time is not exceeded. It also ends, with verdicts, when the first part finds no card, and at Ctrl+C.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.bench import report
from engine.errors import ConfigError
from engine.planning import card_verdicts

TAIL = 2000
"""Characters kept of what a part printed last."""

KILL_S = 10.0
"""How long a killed part may take to end. One that hangs in the GPU's driver may never end."""

INTERRUPTED = "interrupted"
"""How a part ended at Ctrl+C."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the run.

    Attributes:
        name: shown, and written with every row's end.
        arguments: of `python -m engine.bench.gpu`.
        timeout_s: after this many seconds it is killed.
        command: what is run instead of that module; for tests.
    """

    name: str
    arguments: tuple[str, ...]
    timeout_s: float
    command: tuple[str, ...] = (sys.executable, "-m", "engine.bench.gpu")


def _part(name: str, timeout_s: float, arguments: str) -> Part:
    return Part(name, tuple(arguments.split()), timeout_s)


LARGE = "--sizes 832x480,512x512 --steps 1,2 --chunks 20"

ON_GPU: tuple[Part, ...] = (
    _part("machine", 120, "--parts machine"),
    _part("check", 150, "--parts check --modes eager,graphs"),
    _part("waits", 90, "--parts waits"),
    _part("ember", 90, "--parts engine --models ember --sizes 256x256,512x288 --vaes auto --modes graphs --chunks 20"),
    _part("1.3b tiny", 180, f"--parts engine --models wan21-1.3b --vaes tiny --modes graphs {LARGE}"),
    _part("1.3b full", 240, f"--parts engine --models wan21-1.3b --vaes full --modes graphs {LARGE}"),
    _part("kernels", 120, "--parts kernels --models wan21-1.3b --vaes full --sizes 832x480 --steps 2"),
    _part("float8", 90, "--parts float8 --sizes 832x480"),
    _part("1.3b float8", 150, f"--parts engine --models wan21-1.3b --vaes tiny --modes fp8 {LARGE}"),
    _part(
        "14b", 180, "--parts engine --models wan21-14b --sizes 832x480 --vaes tiny --modes graphs --steps 2 --chunks 10"
    ),
    _part("beside", 60, "--parts beside"),
    _part("capture", 60, "--parts capture"),
    _part(
        "full",
        300,
        "--parts engine --models wan21-1.3b --sizes 832x480 --vaes tiny --modes full,full-fp8 --steps 2 --chunks 20",
    ),
)
"""The parts on a card. Their time-outs are about twice what an H200 should need; together it should need 13 minutes,
and after 15 the run ends."""

TINY = "--threads 1 --sizes 32x32 --vaes tiny"

ON_CPU: tuple[Part, ...] = (
    _part("correctness", 300, f"--parts machine,check,waits --modes eager --counts 1 {TINY}"),
    _part("single measurements", 300, f"--parts float8,beside,capture {TINY}"),
    _part("models", 300, f"--parts engine,kernels --modes eager --steps 1 --chunks 2 {TINY}"),
)
"""The same code on tiny shapes, to test the run itself. One thread each: on a busy computer, threads that wait for each
other take five times as much processor time for shapes as small as these."""


def run(
    out: Path,
    device: str,
    parts: Sequence[Part],
    say: Callable[[str], None] = print,
    *,
    limit_s: float = card_verdicts.ALLOWED_S,
) -> list[dict[str, str]]:
    """Run the parts one after the other; returns the verdicts, which are also the file's last line.

    A part that fails, dies or hangs is written down, and the next one runs, while there is time.

    Args:
        out: the file; replaced if it exists.
        device: name of the device.
        parts: `ON_GPU` or `ON_CPU`.
        say: called with a line at each part's start and end.
        limit_s: for how many seconds the run may last; a part that runs then is killed, and later ones are left out. If
            it is more than a quarter of an hour, the time-outs of the parts are longer in proportion.

    Raises:
        ConfigError: if the file cannot be written.
    """
    began = time.monotonic()
    try:
        out.write_text(json.dumps({"benchmark": "card", "machine": report.machine()}) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}).", "Name another file with --out.") from None
    longer = max(1.0, limit_s / card_verdicts.ALLOWED_S)
    why = ""  # the parts that follow are left out
    for number, part in enumerate(parts, 1):
        left_s = limit_s - (time.monotonic() - began)
        if left_s <= 0:
            why = why or f"{limit_s / 60:g} minutes are over"
        if why:
            _append(out, {"part": part.name, "ended": "left out", "seconds": 0.0, "tail": why})
            say(f"{number}/{len(parts)} {part.name}: left out, as {why}")
            continue
        timeout_s = min(longer * part.timeout_s, left_s)
        say(f"{number}/{len(parts)} {part.name} (at most {timeout_s:.0f} s)")
        ended = _run(replace(part, timeout_s=timeout_s), out, device)
        _append(out, ended)
        say(f"    {ended['ended']} after {ended['seconds']:.0f} s")
        if ended["ended"].startswith(INTERRUPTED):
            why = "the run was interrupted"
        elif any("failed" in line["row"] for line in read(out) if line.get("part") == "machine" and "row" in line):
            why = f"torch cannot use {device} (tidecast doctor says why)"
    lines = read(out)
    verdicts = card_verdicts.judge(lines, time.monotonic() - began, on_card=device != "cpu")
    _append(out, {"verdicts": verdicts})
    return verdicts


def _run(part: Part, out: Path, device: str) -> dict[str, Any]:
    command = [*part.command, "--device", device, "--lines", str(out), *part.arguments]
    environment = os.environ | {"PYTHONUTF8": "1"}  # Windows would write into a file in its code page
    began = time.monotonic()
    # Into a file: what a part has started, such as a compiler, can keep a pipe open after the part's end.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code = process.wait(part.timeout_s)
            ended = "ok" if code == 0 else f"failed (exit status {code})" if code > 0 else f"died (signal {-code})"
        except subprocess.TimeoutExpired:
            ended = "timed out" + _kill(process)
        except KeyboardInterrupt:
            ended = INTERRUPTED + _kill(process)
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4 * TAIL))  # a character takes up to four bytes
        tail = said.read().decode("utf-8", "replace")[-TAIL:]
    return {"part": part.name, "ended": ended, "seconds": round(time.monotonic() - began, 1), "tail": tail}


def _kill(process: subprocess.Popen[bytes]) -> str:
    """Kill a part and what it has started; returns what to say about it if it does not end."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    try:
        process.wait(KILL_S)
    except subprocess.TimeoutExpired:
        return ", and does not end although it was killed"
    return ""


def _append(out: Path, line: dict[str, Any]) -> None:
    with out.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(line) + "\n")  # on a line of its own, even after one that a dead part cut off


def read(out: Path) -> list[dict[str, Any]]:
    """The lines of a file; one that a dying part left unfinished is skipped."""
    found = []
    for line in out.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
