"""What the terminal shows while Tidecast runs: an introduction, then a status line, or plain lines for a log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bridge.ipc.start_process import discard_broken_streams
from bridge.printable import one_line
from bridge.process.engine.choice import EngineControls
from bridge.video.table import output_text
from bridge.web.access import is_loopback, qr_text
from engine.control import PREFIX

if TYPE_CHECKING:
    from bridge.app import App

log = logging.getLogger(__name__)

PLAIN_PERIOD_S = 5.0
"""Time between two plain lines."""

MESSAGE_COLUMNS = 26
"""Columns that are kept for a message, before less important figures."""

TARGET_COLOURS = {"late": "yellow", "missed": "red"}
COLOURS = {"running": "green", "loading": "cyan", "no-input": "yellow", "stalled": "yellow", "error": "red"}


@contextlib.contextmanager
def going_on(console: Console) -> Iterator[None]:
    """Go on without the console if it cannot be written: its terminal or its reader is gone, or its disk is full."""
    try:
        yield
    except (OSError, SystemExit) as error:  # rich ends the program when a reader is gone
        console.quiet = True
        discard_broken_streams()
        log.error("The state cannot be shown any more: %s", error.__context__ or error)


def introduction(bridge: App) -> str:
    """Lines of text that say what to open and what to try."""
    config = bridge.config
    chosen = bridge.store.snapshot.of(EngineControls)
    lines = [f"model   {chosen.engine_model} at {chosen.engine_size}"]
    lines.append(f"input   {config.input.uri}")
    lines += [f"output  {output_text(uri)}" for uri in config.output.uris]
    lines.append(f"record  {PREFIX}/record 1, or Record on the page; into {bridge.recorder.folder}")
    if bridge.web is not None:
        lines.append(f"page    {bridge.web.url}")
        lines += qr_text(bridge.web.url).splitlines()
    if bridge.oscquery_url:
        lines.append(f"query   {bridge.oscquery_url} (OSCQuery)")
    if bridge.osc is not None:
        host, port = bridge.osc.address
        lines.append(f"osc     {host}:{port}, {obeyed(host, config.osc.allow)}; for example:")
        for address, kind, value in (
            ("/prompt", "s", "'fire'"),
            ("/strength", "f", "0.8"),
            ("/steps", "i", "1"),
            ("/bypass", "i", "1"),
        ):
            lines.append(f"          oscsend {host} {port} {PREFIX}{address} {kind} {value}")
    lines.append("stop    Ctrl+C")
    return "\n".join(lines)


def obeyed(host: str, allow: tuple[str, ...]) -> str:
    """Whom the OSC port obeys."""
    if is_loopback(host):
        return "for programs on this machine"
    if not allow:
        return "obeys only this machine (to allow another: --osc-allow ADDRESS)"
    return f"obeys this machine and {', '.join(allow)}"


class StatusLine:
    """One line at the bottom of the terminal, or a plain line every few seconds.

    Args:
        bridge: its readings are shown.
        console: where to write.
        live: whether the console can show a line that changes.

    Attributes:
        period_s: how often to call `show`, in seconds.
    """

    def __init__(self, bridge: App, console: Console, live: bool) -> None:
        self._bridge = bridge
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if live else None
        self._said_s = float("-inf")
        self._state = ""
        self.period_s = 0.2

    def __enter__(self) -> Self:
        if self._live is not None:
            with going_on(self._console):
                self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            with going_on(self._console):
                self._live.stop()

    def show(self) -> None:
        """Show the current readings."""
        with going_on(self._console):
            self._show(self._bridge.telemetry.snapshot())

    def _show(self, now: Mapping[str, Any]) -> None:
        if self._live is not None:
            self._live.update(styled(now, self._console.width), refresh=True)
            return
        state = str(now.get("state", "loading"))
        if state != self._state or time.monotonic() - self._said_s >= PLAIN_PERIOD_S:
            self._state, self._said_s = state, time.monotonic()
            self._console.print(styled(now).plain, highlight=False, soft_wrap=True)


def styled(now: Mapping[str, Any], width: int | None = None) -> Text:
    """The readings as one line.

    Args:
        now: the readings.
        width: columns of the terminal; what is least important is left out, and the message is cut. None for all.
    """
    state, target = str(now.get("state", "loading")), str(now.get("target", ""))
    late = "" if target in ("", "held") else f" ({target})"
    parts = [  # (importance, text, style), in the order in which they are shown
        (0, f"{state:9}", COLOURS.get(state, "")),
        (5, f" in {now.get('fps_in', 0.0):4.1f}", ""),
        (3, f" out {now.get('fps_out', 0.0):4.1f}", ""),
        (4, f" engine {now.get('fps_engine', 0.0):4.1f} fps", ""),
        (1, f" latency {now.get('latency', 0.0):4.0f} ms{late}", TARGET_COLOURS.get(target, "")),
        (6, f" dropped {now.get('dropped', 0)}", ""),
        (8, f" vram {now['vram']:.1f} GiB" if now.get("vram") else "", ""),
        (2, " REC" if now.get("recording") else "", "red"),
        (9, f" “{one_line(str(now['prompt'])[:40])}”" if now.get("prompt") else "", "italic"),
    ]
    parts = [part for part in parts if part[1]]
    message = one_line(str(now["message"])) if now.get("message") else ""
    if width is not None:
        room = width - (min(len(message) + 2, MESSAGE_COLUMNS) if message else 0)
        while max(parts)[0] > 2 and _joined(parts).cell_len > room:
            parts.remove(max(parts))
    line = _joined(parts)
    if message:
        line.append(f"  {message}", style="dim")
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _joined(parts: Sequence[tuple[int, str, str]]) -> Text:
    line = Text()
    for _, text, style in parts:
        line.append(f" {text}" if line else text, style=style or "default")
    return line
