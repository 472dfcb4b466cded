"""What the fuzz feeds: every place of the bridge that takes bytes from outside.

A target is a function that takes one input and raises only for a defect: errors that the code declares are expected.
`tidecast bench fuzz` names them; the corpus in `tests/bridge/drills/corpus` has a folder for each.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge.config_file import load
from bridge.control.compat.dialects import DIALECTS
from bridge.control.compat.server import CompatServer
from bridge.control.midi import bindings
from bridge.control.origin import Origin, Trust
from bridge.control.osc.echoes import encoded, forms
from bridge.control.osc.packet import PacketError, build, coalesce, parse
from bridge.control.snapshots import Snapshots
from bridge.control.store import ControlStore
from bridge.control.telemetry import Telemetry
from bridge.drills.fuzzing.target import Check, Target
from bridge.drills.fuzzing.web_targets import http, websocket
from bridge.drills.stress import malformed
from bridge.pipeline.capture import Capture
from bridge.pipeline.input_policy import InputPolicy
from bridge.pipeline.stages.table import STAGES
from bridge.table import TABLE
from bridge.video.address import parse_uri
from bridge.video.base import Options, SourceInfo
from bridge.video.ndi.metadata import from_xml, to_xml
from bridge.video.opening import open_source
from engine.control import PREFIX
from engine.errors import ConfigError, ControlError, TransportError

STRANGER = Origin("osc:192.0.2.1:9", Trust.NETWORK, ("192.0.2.1", 9))


class DefectError(AssertionError):
    """The code did something that it promises not to do."""


class ErrorsLogged(logging.Handler):
    """Collects what is logged as an error: the code logs a defect that must not end a thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.records.append(record)

    def check(self) -> None:
        """Raise the first defect that was logged since the last call."""
        records, self.records = self.records, []
        for record in records:
            caught = record.exc_info[1] if record.exc_info else None
            raise DefectError(f"logged: {record.getMessage()}") from caught


@contextlib.contextmanager
def errors_logged() -> Iterator[ErrorsLogged]:
    """Collect errors of all loggers; nothing is printed."""
    handler, root = ErrorsLogged(), logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [handler]
    try:
        yield handler
    finally:
        root.handlers[:] = before


@contextlib.contextmanager
def packet() -> Iterator[Check]:
    """A datagram: parsed, merged with a copy of itself, and its messages built again."""

    def check(data: bytes) -> None:
        coalesce([(data, 0), (data, 1)], lambda address: True)
        with contextlib.suppress(PacketError):
            for message in parse(data):
                build(message.address, message.args)

    yield check


@contextlib.contextmanager
def pattern() -> Iterator[Check]:
    """An address pattern, with and without the prefix."""

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for address in (text, f"{PREFIX}/{text}"):
            with contextlib.suppress(ControlError):
                TABLE.find(address)

    yield check


@contextlib.contextmanager
def store() -> Iterator[Check]:
    """A datagram obeyed by the store: every value stays valid, and every answer can be sent."""
    with errors_logged() as logged:
        controls = ControlStore(TABLE)
        changed: set[str] = set()
        controls.listen(lambda name, value, origin: changed.add(name))

        def reply(address: str, args: Any) -> None:
            build(PREFIX + address, args)

        def check(data: bytes) -> None:
            try:
                messages = parse(data)
            except PacketError:
                return
            controls.handle_all([(message.address, message.args) for message in messages], STRANGER, reply)
            now = controls.snapshot
            for name in changed:
                row, value = TABLE.by_name[name], now.value(name)
                if row.coerce(value) != value:
                    raise DefectError(f"{name} = {value!r:.200} is not a valid value")
                json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
                for address, form in forms(row, value):
                    encoded(address, form)
            changed.clear()
            logged.check()

        yield check


@contextlib.contextmanager
def compat() -> Iterator[Check]:
    """A datagram of another program; its first byte chooses which program's addresses are understood."""
    with errors_logged() as logged:
        servers = [CompatServer(ControlStore(TABLE), Telemetry(TABLE), name) for name in DIALECTS]

        def check(data: bytes) -> None:
            if data:
                servers[data[0] % len(servers)]._obey(data[1:], ("192.0.2.1", 9))
            logged.check()

        yield check


NOT_OPENED = ("ndi", "screen")
"""Transports that would talk to the network; their addresses are only split."""


@contextlib.contextmanager
def source() -> Iterator[Check]:
    """A text at `/tidecast/input`: the capture chooses and opens a source, or says why it cannot."""
    listed = [SourceInfo("pattern:bars", "bars"), SourceInfo("pattern:counter", "counter")]
    with errors_logged() as logged:
        controls = ControlStore(TABLE)
        controls.restrict("input", InputPolicy((), lambda: listed))
        operator = Origin("osc:127.0.0.1:9", Trust.OPERATOR, ("127.0.0.1", 9))
        capture = Capture(
            "pattern:bars",
            Options(),
            64,
            64,
            controls,
            STAGES,
            lambda: listed,
            lambda *_: None,
            lambda *_: None,
        )

        def check(data: bytes) -> None:
            controls.handle(f"{PREFIX}/input", [data.decode("utf-8", "replace")], operator)
            with contextlib.suppress(TransportError):
                chosen = capture.source.choice()
                if parse_uri(chosen)[0] not in NOT_OPENED:
                    open_source(chosen).close()
            logged.check()

        yield check


@contextlib.contextmanager
def ndi_metadata() -> Iterator[Check]:
    """What another program sends along with its NDI frames; what we make of it can be passed on."""

    def check(data: bytes) -> None:
        strings = from_xml(data.decode("utf-8", "replace"))
        with contextlib.suppress(ValueError):
            to_xml(strings)

    yield check


@contextlib.contextmanager
def files() -> Iterator[Check]:
    """A damaged file of snapshots, of MIDI bindings or of settings; the first byte chooses which."""
    with tempfile.TemporaryDirectory() as folder, errors_logged() as logged:
        path = Path(folder) / "damaged.toml"

        def snapshots() -> None:
            stored = Snapshots(ControlStore(TABLE), path, lambda topic, reason: None)
            stored._stored = stored._file.read() or {}
            stored.names(), stored.colors(), stored.pictures()
            for number in stored.numbers():
                with contextlib.suppress(ControlError):
                    stored.recall(number)

        def midi() -> None:
            with contextlib.suppress(bindings.BindingsError):
                bindings.load(path, TABLE)

        def settings() -> None:
            with contextlib.suppress(ConfigError):
                load(path)

        readers = (snapshots, midi, settings)

        def check(data: bytes) -> None:
            if data:
                path.write_bytes(data[1:])
                readers[data[0] % len(readers)]()
                for left in Path(folder).iterdir():
                    left.unlink()
            logged.check()

        yield check


DATAGRAMS = tuple(malformed(60, seed=2))
HTTP_SEEDS = (
    b"0GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n",
    b"0GET /tidecast/strength?VALUE HTTP/1.1\r\nHost: localhost\r\n\r\nGET /?HOST_INFO HTTP/1.1\r\nHost: a\r\n\r\n",
    b"0GET /api/picture/output.jpg HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nIf-None-Match: x\r\n\r\n",
    b'0POST /api/set HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\n\r\n{"strength": 0.5}',
    b'0POST /api/send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n0\r\n\r\n',
    b"1GET /?token=secret HTTP/1.1\r\nHost: 192.0.2.7\r\nAccept: text/html\r\nCookie: tidecast_token=x; a=b\r\n\r\n",
    b"1GET /api/state HTTP/1.1\r\nHost: [::1]:9\r\nOrigin: http://[::1]:9\r\nAuthorization: Bearer secret\r\n\r\n",
    b"0GET /api/socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x82abcd\x1a\x1f",
)
WEBSOCKET_SEEDS = (
    b'0{"address": "/tidecast/strength", "args": [0.5]}\n{"ask": "inputs"}\n[1]\n\xff\xfe',
    b'1{"watch": ["output", "input"]}\n"drawn"\n{"watch": [{"a": 1}, null]}',
    b'2{"COMMAND": "LISTEN", "DATA": "/tidecast/strength"}\n{"COMMAND": "IGNORE", "DATA": "/tidecast/strength"}\n'
    + build(f"{PREFIX}/mix", (0.5,)),
    b'0{"address": "' + b"/" * 300 + b'", "args": [1e999, "\\ud800", true]}\n' + b"[" * 3000,
)

TARGETS = {
    target.name: target
    for target in (
        Target("packet", packet, DATAGRAMS),
        Target("pattern", pattern, (b"strength", b"/tidecast/{mix,seed}", b"*/*[a-z]?", b"{,}" * 12 + b"x", b"[!-]{")),
        Target("store", store, DATAGRAMS + tuple(build(a, (0.5,)) for a in list(TABLE.targets)[::7])),
        Target("compat", compat, tuple(bytes([n % 3]) + data for n, data in enumerate(DATAGRAMS))),
        Target(
            "source",
            source,
            (b"pattern:bars", b"file:/tmp/none.mp4", b"file:~nobody/x.mp4", b"1", b"9" * 300, b"null:", b"camera:0"),
        ),
        Target(
            "ndi_metadata", ndi_metadata, (b'<tidecast seq="7" strength="0.6"/>', b"<ndi_x/>", b'<tidecast a="&#9;"')
        ),
        Target(
            "files",
            files,
            (
                b'0{"version": 1, "snapshots": {"1": {"strength": 0.5, "prompt_1": "neon"}, "64": {}}}',
                b'1[[binding]]\naddress = "/strength"\ncc = 1\nchannel = 2\nfine = true\n',
                b'2[engine]\nmodel = "ember"\n[controls]\nstrength = 0.5\n[osc]\nport = 9000\ncompat = ["scope"]\n',
            ),
        ),
        Target("http", http, HTTP_SEEDS),
        Target("websocket", websocket, WEBSOCKET_SEEDS),
    )
}
"""Every target by name."""
