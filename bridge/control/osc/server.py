"""OSC over UDP: messages in, echoes, telemetry and errors out.

`OscServer` has two threads. The thread of its `UdpPort` passes messages to the `ControlStore`. The sender's thread
wakes when something has changed, at most `ECHO_HZ` times a second, and sends effective values and errors; ten times a
second it sends the telemetry. Neither thread waits for a client.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bridge.control.origin import Origin, trust_of
from bridge.control.osc.echoes import echoes, encoded
from bridge.control.osc.packet import PacketError, build, parse
from bridge.control.osc.subscribers import Subscribers
from bridge.control.osc.udp import Address, UdpPort
from bridge.control.store import Caller, ControlStore
from bridge.control.telemetry import Telemetry
from bridge.service import Service
from engine.control import PREFIX, Command, Kind, Reading
from engine.errors import ControlError, TidecastError

log = logging.getLogger(__name__)

ECHO_HZ = 40.0
TELEMETRY_HZ = 10.0
HEARTBEAT_HZ = 1.0

ERRORS_PER_TICK = 16
"""Most errors sent to one client at a time; further ones are only counted."""

MAX_ERROR_CLIENTS = 256
"""Most clients to which errors are sent at a time."""

MAX_LIST_CLIENTS = 64
"""Most clients that can wait for the list of inputs."""

SUBSCRIBE = Command(
    "subscribe",
    "/subscribe",
    (("port", "i", True),),
    "Clients",
    "Subscribe",
    "Send telemetry and echoes to the sender's host at this port; any message renews it; it ends after 30 s of "
    "silence.",
)
RESEND = Command("resend", "/resend", (), "Clients", "Resend", "Send every effective value again.")
INPUTS = Command("inputs", "/inputs", (), "Video", "Inputs", "Answer the list of sources that can be seen.")
HEARTBEAT = Reading("heartbeat", "/status/heartbeat", Kind.INT, "", "Counts up once a second.", HEARTBEAT_HZ)


class OscServer:
    """Serves the namespace on one UDP port.

    Args:
        store: the live controls.
        telemetry: the readings for subscribers.
        host: address to listen on; `0.0.0.0` allows other machines.
        port: UDP port; 0 lets the system choose (see `address`).
        inputs: lists the sources that can be seen, for `/inputs`; may take seconds.
        remedy: what the user can do when the port is taken.
    """

    def __init__(
        self,
        store: ControlStore,
        telemetry: Telemetry,
        *,
        host: str = "0.0.0.0",
        port: int = 9000,
        inputs: Callable[[], Sequence[str]] | None = None,
        remedy: str = "Stop the other program, or choose another port with --osc-port.",
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._inputs = inputs
        self.subscribers = Subscribers()
        values = frozenset(a.encode() for a, t in store.table.targets.items() if t.control is not None)
        self._port = UdpPort(
            host, port, latest_wins=values.__contains__, obey=self._obey, note_hosts=self._renew, remedy=remedy
        )
        self._service = Service("osc-send", self._send, telemetry.error, self._notice)
        self._wake = threading.Condition()
        self._changed: set[str] = set()
        self._errors: dict[Address | None, dict[str, str]] = {}
        self._more_errors = 0
        self._full_updates: set[Address] = set()
        self._list_clients: list[Caller] = []
        self._undo: list[Callable[[], None]] = []

    @property
    def address(self) -> Address:
        """Host and port on which it listens."""
        return self._port.address

    def start(self) -> OscServer:
        """Bind the port and serve. Does nothing if the server is running.

        Raises:
            PortInUseError: if another program has the port.
            ConfigError: if the host is not an address of this machine or the port may not be used.
        """
        if self._undo:
            return self
        store = self._store
        self._undo = [
            store.listen(lambda name, value, origin: self._note_change(name)),
            store.listen_errors(lambda address, reason: self._note_error(None, address, reason)),
            self._telemetry.listen_errors(lambda topic, reason: self._note_error(None, topic, reason)),
            store.on(SUBSCRIBE.name, self._subscribe),
            store.on(RESEND.name, self._resend),
        ]
        if self._inputs is not None:
            self._undo.append(store.on(INPUTS.name, self._list_inputs))
        try:
            self._port.start()
        except TidecastError:
            self._unregister()
            raise
        self._service.start()
        log.info("OSC on %s:%d", *self.address)
        return self

    def stop(self) -> None:
        """Stop serving and free the port. Does nothing if the server is not running."""
        self._service.stop()
        self._port.stop()
        self._unregister()

    def _notice(self) -> None:
        with self._wake:
            self._wake.notify()

    def _unregister(self) -> None:
        for undo in self._undo:
            undo()
        self._undo = []

    def __enter__(self) -> OscServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # Receiving: on the thread of the port

    def _renew(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            self.subscribers.renew(host, time.monotonic())

    def _obey(self, datagram: bytes, sender: Address) -> None:
        try:
            messages = parse(datagram)
        except PacketError as error:
            self._note_error(sender, "/", str(error))
            return
        origin = Origin(f"osc:{sender[0]}:{sender[1]}", trust_of(sender[0]), sender)
        reply = functools.partial(self._reply, sender)
        self._store.handle_all(messages, origin, reply)

    def _subscribe(self, args: tuple[Any, ...], caller: Caller) -> None:
        (port,) = args
        source = caller.origin.address
        if source is None:
            raise ControlError(PREFIX + SUBSCRIBE.address, "Only OSC clients can subscribe.")
        if not 0 < port < 65536:
            raise ControlError(PREFIX + SUBSCRIBE.address, f"{port} is not a UDP port (1 to 65535).")
        target = (source[0], port)
        new = target not in self.subscribers.current(time.monotonic())
        if not self.subscribers.add(target, source, time.monotonic()):
            raise ControlError(PREFIX + SUBSCRIBE.address, "There are too many subscribers already.")
        if new:
            self._request_full_update((target,))

    def _resend(self, args: tuple[Any, ...], caller: Caller) -> None:
        source = caller.origin.address
        if source is not None:
            self._request_full_update(self.subscribers.reply_targets(source))
        else:
            self._request_full_update(self.subscribers.current(time.monotonic()))

    def _list_inputs(self, args: tuple[Any, ...], caller: Caller) -> None:
        """Look for sources on a thread; a client that asks meanwhile is answered after another search.

        Not a `Service`: the thread ends with the last waiting client, under the lock that adds the next one.
        """
        with self._wake:
            self._list_clients = [*self._list_clients[-MAX_LIST_CLIENTS + 1 :], caller]
            if len(self._list_clients) == 1:
                threading.Thread(target=self._answer_inputs, name="osc-inputs", daemon=True).start()

    def _answer_inputs(self) -> None:
        assert self._inputs is not None
        while True:
            with self._wake:
                asked = list(self._list_clients)
            try:
                address, answer = "/inputs", tuple(self._inputs())
            except TidecastError as error:
                address, answer = "/error", (PREFIX + INPUTS.address, str(error))
            for caller in asked:
                caller.reply(address, answer)
            with self._wake:
                self._list_clients = [c for c in self._list_clients if c not in asked]
                if not self._list_clients:
                    return

    # Sending: on the sender's thread, except `_reply`

    def _reply(self, sender: Address, address: str, args: Sequence[Any]) -> None:
        if address == "/error":
            self._note_error(sender, str(args[0]), str(args[1]))
            return
        try:
            datagram = build(PREFIX + address, args)
        except PacketError as error:
            self._note_error(sender, PREFIX + address, str(error))
            return
        self._port.send([datagram], self.subscribers.reply_targets(sender))

    def _note_change(self, name: str) -> None:
        with self._wake:
            self._changed.add(name)
            self._wake.notify()

    def _request_full_update(self, targets: Iterable[Address]) -> None:
        """Have all values sent to these targets soon, and only once however often it is requested until then."""
        with self._wake:
            self._full_updates.update(targets)
            self._wake.notify()

    def _note_error(self, sender: Address | None, address: str, reason: str) -> None:
        """Queue an error for one sender, or for every subscriber if `sender` is None."""
        address, reason = (t[:1000].encode("utf-8", "replace").decode() for t in (address, reason))
        with self._wake:
            if sender not in self._errors and len(self._errors) >= MAX_ERROR_CLIENTS:
                self._more_errors += 1
                return
            mine = self._errors.setdefault(sender, {})
            if address in mine or len(mine) < ERRORS_PER_TICK:
                mine[address] = reason
            else:
                self._more_errors += 1
            self._wake.notify()

    def _send(self) -> None:
        started = time.monotonic()
        next_telemetry = started
        beats = 0
        while not self._service.stopping.is_set():
            with self._wake:
                if not (self._changed or self._errors or self._full_updates):
                    self._wake.wait(max(0.0, next_telemetry - time.monotonic()))
                changed, self._changed = self._changed, set()
                errors, self._errors = self._errors, {}
                more, self._more_errors = self._more_errors, 0
                full_updates, self._full_updates = self._full_updates, set()
            now = time.monotonic()
            subscribers = self.subscribers.current(now)
            if errors:
                self._send_errors(errors, more, subscribers)
            if changed and subscribers:
                self._port.send(self._values(changed), subscribers)
            if full_updates:
                self._port.send([*self._values(self._store.table.by_name), *self._readings(True)], full_updates)
            if now >= next_telemetry:
                beat = now - started >= beats / HEARTBEAT_HZ
                if beat:
                    beats += 1
                    self._telemetry.update(heartbeat=beats)
                if subscribers:
                    self._port.send(self._readings(beat), subscribers)
                next_telemetry = max(next_telemetry + 1.0 / TELEMETRY_HZ, now)
            self._service.stopping.wait(1.0 / ECHO_HZ)

    def _send_errors(
        self, errors: dict[Address | None, dict[str, str]], more: int, subscribers: Sequence[Address]
    ) -> None:
        told: set[tuple[Address, str]] = set()
        for sender, mine in errors.items():
            targets = subscribers if sender is None else self.subscribers.reply_targets(sender)
            for address, reason in mine.items():
                fresh = [t for t in targets if (t, address) not in told]
                told.update((t, address) for t in fresh)
                self._port.send(encoded(PREFIX + "/error", address, reason), fresh)
        if more:
            senders = [s for s in errors if s is not None]
            text = f"{more} more messages were not understood."
            self._port.send(encoded(PREFIX + "/error", "/", text), {*subscribers, *senders})

    def _values(self, names: Iterable[str]) -> list[bytes]:
        now, rows = self._store.snapshot, self._store.table.by_name
        return [datagram for name in names for datagram in echoes(rows[name], now.value(name))]

    def _readings(self, beat: bool) -> list[bytes]:
        now = self._telemetry.snapshot()
        wanted = [r for r in self._store.table.readings if r.name in now and (beat or r.hertz >= TELEMETRY_HZ)]
        return [datagram for r in wanted for datagram in encoded(PREFIX + r.address, now[r.name])]
