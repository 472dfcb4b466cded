"""Other programs' OSC addresses, so that patches made for them drive Tidecast unchanged.

A dialect says what each of a peer's messages means in the table of controls and what the peer would have
reported; `CompatServer` listens on the peer's port and translates. The dialects are pure. Written from the peers'
documented addresses; must not know the engine or video.
"""

from __future__ import annotations

import abc
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from bridge.control.osc.packet import PacketError, build, parse
from bridge.control.osc.udp import Address, UdpPort
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from engine.controls import BY_NAME, PROMPT_SLOTS
from engine.errors import ConfigError, ControlError

log = logging.getLogger(__name__)

REPORT_HZ = 10.0
KEEP_SECONDS = 30.0
"""A host from which nothing came for this long gets no more reports."""

MAX_HOSTS = 16

Changes = Mapping[str, Any]
"""Controls by name, with values as they came; `reset` asks for a reset, `recall` for the snapshot of that number."""

FRAMES_PER_CHUNK = 4


class Dialect(abc.ABC):
    """What one peer's messages mean.

    Attributes:
        name: as on the command line.
        port: UDP port on which the peer listens.
        answer_port: UDP port to which it reports; 0 if it does not.
        values: addresses whose newest message makes older ones void.
        ignored: addresses that are accepted and have no counterpart here, with the reason.
    """

    name: str
    port: int
    answer_port: int = 0
    values: frozenset[str]
    ignored: ClassVar[Mapping[str, str]]

    @abc.abstractmethod
    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """What a message changes.

        Raises:
            ControlError: if the peer has no such address or the arguments are not as documented.
        """

    def report(self, readings: Mapping[str, Any], elapsed: float) -> list[tuple[str, Any]]:
        """What the peer would report now, as (address, value), `elapsed` seconds after the last report."""
        return []

    def complain(self, address: str, reason: str) -> list[tuple[str, Any]]:
        """How the peer would report an error."""
        return []


def _number(address: str, args: Sequence[Any]) -> float:
    if len(args) != 1:
        raise ControlError(address, f"One number is needed, {len(args)} values came.")
    try:
        number = float(args[0])
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ControlError(address, f"{args[0]!r:.60} is not a number.")
    return number


def _pairs(address: str, args: Sequence[Any]) -> list[tuple[Any, float]]:
    """The argument as JSON [[value, weight], ...], heaviest first, negative weights as 0."""
    try:
        (text,) = args
        pairs = [(value, max(0.0, float(weight))) for value, weight in json.loads(text)]
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ControlError(address, "A JSON list of [value, weight] pairs is needed.") from None
    if not pairs:
        raise ControlError(address, "The list is empty.")
    return sorted(pairs, key=lambda pair: -pair[1])


def _prompt(text: Any) -> dict[str, Any]:
    return {"prompt_1": text, **{f"weight_{n}": float(n == 1) for n in range(1, PROMPT_SLOTS + 1)}}


class StreamDiffusionTd(Dialect):
    """The addresses of StreamDiffusionTD. Its list of timesteps becomes strength and steps: how many there are is
    the number of steps, and the earliest tells how much noise is added."""

    name = "streamdiffusiontd"
    port = 8247
    answer_port = 8248
    values = frozenset({"/prompt", "/prompt_list", "/seed", "/seed_list"})
    ignored: ClassVar[Mapping[str, str]] = {
        "/guidance_scale": "Tidecast's models are distilled and use no guidance",
        "/delta": "Tidecast's models are distilled and use no guidance",
    }

    def __init__(self) -> None:
        self._schedule = 50
        self._frames = 0.0
        self._beat = 0.0

    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """See `Dialect.translate`."""
        match address:
            case "/prompt":
                return _prompt(args[0] if len(args) == 1 else _wrong(address, "one text"))
            case "/prompt_list":
                pairs = _pairs(address, args)[:PROMPT_SLOTS]
                pairs += [("", 0.0)] * (PROMPT_SLOTS - len(pairs))
                return {f"prompt_{n}": text for n, (text, _) in enumerate(pairs, 1)} | {
                    f"weight_{n}": weight / max(1.0, pairs[0][1]) for n, (_, weight) in enumerate(pairs, 1)
                }
            case "/seed":
                return {"seed": _number(address, args)}
            case "/seed_list":
                return {"seed": _pairs(address, args)[0][0]}
            case "/t_list":
                times = [_number(address, [a]) for a in args] or _wrong(address, "at least one timestep")
                return {"steps": len(times), "strength": 1.0 - min(times) / self._schedule}
            case "/num_inference_steps":
                self._schedule = max(1, int(_number(address, args)))
                return {}
            case "/pause":
                return {"freeze": True}
            case "/play":
                return {"freeze": False, "bypass": False}
            case "/stop":
                return {"bypass": True}
        raise ControlError(address, "StreamDiffusionTD has no such address.")

    def report(self, readings: Mapping[str, Any], elapsed: float) -> list[tuple[str, Any]]:
        """See `Dialect.report`. The count of frames goes on at the measured output rate."""
        fps = float(readings.get("fps_out", 0.0))
        self._frames += fps * elapsed
        self._beat += elapsed
        found: list[tuple[str, Any]] = [
            ("/stream-info/state", readings.get("state", "loading")),
            ("/stream-info/fps", fps),
            ("/framecount", int(self._frames)),
            ("/vram/used", float(readings.get("vram", 0.0))),
        ]
        if self._beat >= 1.0:
            self._beat %= 1.0
            found.append(("/server_active", 1))
        return found

    def complain(self, address: str, reason: str) -> list[tuple[str, Any]]:
        """See `Dialect.complain`."""
        return [("/stream-info/error", f"{address}: {reason}")]


class Scope(Dialect):
    """The addresses of Daydream Scope. Of its list of denoising steps the length counts."""

    name = "scope"
    port = 8000
    values = frozenset({"/scope/prompt", "/scope/noise_scale", "/scope/transition_steps"})
    ignored: ClassVar[Mapping[str, str]] = {
        "/scope/kv_cache_attention_bias": "Tidecast's cache needs no bias",
        "/scope/manage_cache": "Tidecast always manages its cache",
    }

    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """See `Dialect.translate`."""
        if len(args) != 1 and address != "/scope/denoising_step_list":
            _wrong(address, "one value")
        match address:
            case "/scope/prompt":
                return _prompt(args[0])
            case "/scope/transition_steps":
                fps = float(readings.get("fps_engine", 0.0)) or 16.0
                return {"prompt_seconds": _number(address, args) * FRAMES_PER_CHUNK / fps}
            case "/scope/denoising_step_list":
                times = [_number(address, [a]) for a in args] or _wrong(address, "at least one step")
                return {"steps": len(times)}
            case "/scope/noise_scale":
                return {"strength": args[0]}
            case "/scope/noise_controller":
                return {"motion": float(BY_NAME["bypass"].coerce(args[0]))}
            case "/scope/reset_cache":
                return {"reset": True} if BY_NAME["bypass"].coerce(args[0]) else {}
            case "/scope/paused":
                return {"freeze": args[0]}
        raise ControlError(address, "Scope has no such address.")


class Resolume(Dialect):
    """What Resolume Arena sends at its OSC output; its addresses are fixed. The links of the composition's dashboard
    move controls over their whole ranges, and a column recalls the snapshot of its number."""

    name = "resolume"
    port = 7001
    links = ("strength", "mix", "motion", "weight_1", "weight_2", "weight_3", "weight_4", "steps")
    values = frozenset(f"/composition/dashboard/link{n}" for n in range(1, len(links) + 1))
    ignored: ClassVar[Mapping[str, str]] = {}

    def translate(self, address: str, args: Sequence[Any], readings: Mapping[str, Any]) -> Changes:
        """See `Dialect.translate`. Resolume reports everything that moves in it, so what is not listed changes
        nothing."""
        link = re.fullmatch(r"/composition/dashboard/link([1-8])", address)
        if link:
            control = BY_NAME[self.links[int(link[1]) - 1]]
            return {control.name: control.from_norm(_number(address, args))}
        column = re.fullmatch(r"/composition/columns/(\d{1,3})/connect", address)
        if column and _number(address, args) >= 0.5:
            return {"recall": int(column[1])}
        return {}


def _wrong(address: str, want: str) -> Any:
    raise ControlError(address, f"The arguments must be {want}.")


DIALECTS: dict[str, Callable[[], Dialect]] = {d.name: d for d in (StreamDiffusionTd, Scope, Resolume)}
"""What `--compat` takes."""


class CompatServer:
    """Obeys a peer's messages on its port and reports as it does, beside the namespace. `start` and `stop` are
    idempotent.

    Reports go to `answer_to`, or to every host from which something came in the last 30 s.

    Args:
        store, telemetry: the live controls and readings.
        dialect: a name in `DIALECTS`.
        host: address to listen at.
        port: UDP port; None for the peer's own, 0 lets the system choose.
        answer_to: where reports go; None for the peer's port at the hosts that speak to us.

    Raises:
        ConfigError: if there is no such dialect.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        dialect: str,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        answer_to: Address | None = None,
    ) -> None:
        if dialect not in DIALECTS:
            raise ConfigError(f"There is no compatibility mode {dialect!r}.", f"Choose from {', '.join(DIALECTS)}.")
        self._store = store
        self._telemetry = telemetry
        self._dialect = DIALECTS[dialect]()
        self._answer_to = answer_to
        self._hosts: dict[str, float] = {}
        self._told: set[str] = set()
        values = frozenset(a.encode() for a in self._dialect.values)
        self._port = UdpPort(
            host,
            self._dialect.port if port is None else port,
            latest_wins=values.__contains__,
            obey=self._obey,
            heard=self._note_hosts,
            remedy=f"Stop {dialect} itself, or choose another port with --compat-port.",
        )
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._undo: list[Callable[[], None]] = []

    @property
    def address(self) -> Address:
        """Host and port on which it listens."""
        return self._port.address

    def start(self) -> CompatServer:
        """Listen and report.

        Raises:
            PortInUseError: if another program (the peer itself?) has the port.
            ConfigError: if the host is not an address of this machine.
        """
        if self._thread is not None:
            return self
        self._port.start()
        self._undo = [self._telemetry.listen_errors(self._complain), self._store.listen_errors(self._complain)]
        self._stop.clear()
        self._thread = threading.Thread(target=self._report, name="compat", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop and free the port."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        self._port.stop()
        for undo in self._undo:
            undo()

    def __enter__(self) -> CompatServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _note_hosts(self, hosts: Any) -> None:
        now = time.monotonic()
        kept = {h: t for h, t in self._hosts.items() if now - t < KEEP_SECONDS} | dict.fromkeys(hosts, now)
        self._hosts = dict(list(kept.items())[-MAX_HOSTS:])

    def _obey(self, datagram: bytes, sender: Address) -> None:
        try:
            messages = parse(datagram)
        except PacketError as error:
            self._telemetry.error(self._dialect.name, str(error))
            return
        for message in messages:
            try:
                self._carry_out(message.address, message.args, f"{self._dialect.name}:{sender[0]}")
            except ControlError as error:
                self._telemetry.error(message.address[:200], str(error))

    def _carry_out(self, address: str, args: Sequence[Any], origin: str) -> None:
        ignored = self._dialect.ignored.get(address)
        if ignored is not None:
            if address not in self._told:
                self._told.add(address)
                log.info("%s is accepted and does nothing: %s", address, ignored)
            return
        changes = dict(self._dialect.translate(address, args, self._telemetry.snapshot()))
        if changes.pop("reset", False):
            self._store.handle("/tidecast/reset", (), origin)
        if "recall" in changes:
            self._store.handle("/tidecast/snapshot/recall", (changes.pop("recall"),), origin)
        if changes:
            self._store.set_many(changes, origin)

    def _targets(self) -> list[Address]:
        if self._answer_to is not None:
            return [self._answer_to]
        if not self._dialect.answer_port:
            return []
        now = time.monotonic()
        return [(h, self._dialect.answer_port) for h, t in self._hosts.items() if now - t < KEEP_SECONDS]

    def _complain(self, address: str, reason: str) -> None:
        self._send(self._dialect.complain(address, reason))

    def _report(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(1.0 / REPORT_HZ):
            now = time.monotonic()
            self._send(self._dialect.report(self._telemetry.snapshot(), now - last))
            last = now

    def _send(self, messages: Sequence[tuple[str, Any]]) -> None:
        targets = self._targets()
        if targets and messages:
            self._port.send([build(address, (value,)) for address, value in messages], targets)
