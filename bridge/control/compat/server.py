"""Other programs' OSC addresses, so that patches made for them drive Tidecast unchanged.

A dialect translates another program's messages into changes of controls, and Tidecast's readings into what that program
would report. `CompatServer` listens on that program's port and uses the dialect.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bridge.control.compat.dialect import Dialect
from bridge.control.compat.dialects import DIALECTS
from bridge.control.origin import Origin, trust_of
from bridge.control.osc.gate import Gate
from bridge.control.osc.packet import PacketError, build, parse
from bridge.control.osc.udp import Address, UdpPort
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.service import Service
from engine.control import PREFIX
from engine.errors import ConfigError, ControlError

log = logging.getLogger(__name__)

REPORT_HZ = 10.0
KEEP_SECONDS = 30.0
"""A host from which nothing has come for this long gets no more reports."""

MAX_HOSTS = 16


class CompatServer:
    """Listens on another program's port, obeys the messages made for it and reports as it would. `start` and `stop` are
    idempotent.

    Reports go to `answer_to`, or to every confirmed host from which something has come in the last 30 s.

    Args:
        store, telemetry: the live controls and readings.
        dialect: a name in `dialects`.
        host: address to listen at.
        port: UDP port; None for that of the dialect, 0 lets the system choose.
        answer_to: where reports go; None for the dialect's answer port at the hosts that send messages.
        dialects: the dialects to choose from.
        gate: decides who is obeyed and how much is sent; None for one that knows only this machine.

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
        dialects: Mapping[str, type[Dialect]] = DIALECTS,
        gate: Gate | None = None,
    ) -> None:
        if dialect not in dialects:
            raise ConfigError(f"There is no compatibility mode {dialect!r}.", f"Choose from {', '.join(dialects)}.")
        self._store = store
        self._telemetry = telemetry
        self._dialect = dialects[dialect](store.table)
        self._answer_to = answer_to
        self._hosts: dict[str, float] = {}
        self._logged: set[str] = set()
        self._gate = gate or Gate(report=telemetry.error)
        values = frozenset(a.encode() for a in self._dialect.values)
        self._port = UdpPort(
            host,
            self._dialect.port if port is None else port,
            self._gate,
            latest_wins=values.__contains__,
            obey=self._obey,
            remedy=f"Stop {dialect} itself, or choose another port with --compat-port.",
        )
        self._service = Service("compat", self._report, telemetry.error)
        self._undo: list[Callable[[], None]] = []

    @property
    def address(self) -> Address:
        """Host and port on which it listens."""
        return self._port.address

    def start(self) -> CompatServer:
        """Listen and report.

        Raises:
            PortInUseError: if another program, perhaps the peer itself, has the port.
            ConfigError: if the host is not an address of this machine.
        """
        if self._undo:
            return self
        self._port.start()
        self._undo = [self._telemetry.listen_errors(self._complain), self._store.listen_errors(self._complain)]
        self._service.start()
        return self

    def stop(self) -> None:
        """Stop and free the port."""
        self._service.stop()
        self._port.stop()
        for undo in self._undo:
            undo()
        self._undo = []

    def __enter__(self) -> CompatServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _note_host(self, host: str) -> None:
        if not self._gate.confirmed(host):
            return
        now = time.monotonic()
        kept = {h: t for h, t in self._hosts.items() if now - t < KEEP_SECONDS and h != host}
        self._hosts = dict([*kept.items(), (host, now)][-MAX_HOSTS:])

    def _obey(self, datagram: bytes, sender: Address) -> None:
        self._note_host(sender[0])
        try:
            messages = parse(datagram)
        except PacketError as error:
            self._store.refuse(self._dialect.name, str(error))
            return
        origin = Origin(f"{self._dialect.name}:{sender[0]}", trust_of(sender[0]), sender)
        for message in messages:
            try:
                self._carry_out(message.address, message.args, origin)
            except ControlError as error:
                self._store.refuse(message.address, str(error))

    def _carry_out(self, address: str, args: Sequence[Any], origin: Origin) -> None:
        ignored = self._dialect.ignored.get(address)
        if ignored is not None:
            if address not in self._logged:
                self._logged.add(address)
                log.info("%s is accepted and does nothing: %s", address, ignored)
            return
        changes = dict(self._dialect.translate(address, args, self._telemetry.snapshot()))
        if changes.pop("reset", False):
            self._store.handle(PREFIX + "/reset", (), origin)
        if "recall" in changes:
            self._store.handle(PREFIX + "/snapshot/recall", (changes.pop("recall"),), origin)
        for below, values in changes.pop("send", ()):
            self._store.handle(PREFIX + below, values, origin)
        if changes:
            self._store.set_many(changes, origin)

    def _targets(self) -> list[Address]:
        if self._answer_to is not None:
            return [self._answer_to]
        if not self._dialect.answer_port:
            return []
        now = time.monotonic()
        hosts = [(h, self._dialect.answer_port) for h, t in self._hosts.items() if now - t < KEEP_SECONDS]
        return hosts or ([] if self._dialect.peer is None else [self._dialect.peer])

    def _complain(self, address: str, reason: str) -> None:
        self._send(self._dialect.complain(address, reason))

    def _report(self) -> None:
        last = time.monotonic()
        while not self._service.stopping.wait(1.0 / REPORT_HZ):
            now = time.monotonic()
            self._send(self._dialect.report(self._telemetry.snapshot(), now - last))
            last = now

    def _send(self, messages: Sequence[tuple[str, Any]]) -> None:
        targets = self._targets()
        if targets and messages:
            datagrams = [build(address, () if value is None else (value,)) for address, value in messages]
            self._port.send(datagrams, targets)
