"""OSC datagrams to messages and back; any input is safe.

Arguments are decoded by python-osc. This module parses bundles itself and checks a datagram's structure first, because
the library loops for ever on a bundle element of negative size, raises Unicode errors, recurses as deep as a bundle is
nested, and logs every unknown type tag. Time tags are ignored: a message takes effect when it arrives.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from pythonosc.osc_message import OscMessage
from pythonosc.osc_message import ParseError as MessageParseError
from pythonosc.osc_message_builder import BuildError as MessageBuildError
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.parsing.osc_types import BuildError, ParseError

from engine.errors import TidecastError

MAX_DATAGRAM = 65507
"""Largest UDP payload in bytes."""

MAX_ARGUMENTS = 256
"""Most arguments of one message; no address has more than a handful."""

MAX_MESSAGES = 256
"""Most messages of one datagram: several times as many as there are addresses. Each costs time."""

MAX_DEPTH = 8
"""Deepest nesting of bundles."""

BUNDLE = b"#bundle\0"
_TAGS = b"ihfdsSbrmtTFNI"
_SYNONYMS = bytes.maketrans(b"IS", b"Ts")
"""An impulse counts as true (a trigger), and a symbol as a string."""


class PacketError(TidecastError):
    """A datagram is not OSC, or a value cannot be put into one."""


class Message(NamedTuple):
    """One OSC message: address and arguments as plain Python values."""

    address: str
    args: tuple[Any, ...]


def parse(datagram: bytes) -> list[Message]:
    """The messages of a datagram, in their order in it.

    Raises:
        PacketError: if the datagram is malformed; the message says what is wrong.
    """
    found: list[Message] = []
    _walk(datagram, 0, found)
    return found


def _walk(part: bytes, depth: int, found: list[Message]) -> None:
    if not part.startswith(BUNDLE):
        if len(found) >= MAX_MESSAGES:
            raise PacketError(f"The datagram holds more than {MAX_MESSAGES} messages.")
        found.append(_message(part))
        return
    if depth >= MAX_DEPTH:
        raise PacketError(f"Bundles are nested deeper than {MAX_DEPTH}.")
    at = len(BUNDLE) + 8  # the time tag is ignored
    if len(part) < at:
        raise PacketError("A bundle without a time tag.")
    while at < len(part):
        if at + 4 > len(part):
            raise PacketError("A bundle ends inside the size of an element.")
        (size,) = struct.unpack_from(">i", part, at)
        at += 4
        if size < 0 or at + size > len(part):
            raise PacketError(f"A bundle's element claims {size} bytes, {len(part) - at} are left.")
        if size:
            _walk(part[at : at + size], depth + 1, found)
        at += size


def _message(part: bytes) -> Message:
    if not part.startswith(b"/"):
        raise PacketError("The datagram begins with neither an address nor a bundle.")
    address_end = part.find(b"\0")
    if address_end < 0:
        raise PacketError("The address has no end.")
    tags_at = (address_end // 4 + 1) * 4
    if tags_at < len(part):
        if part[tags_at : tags_at + 1] != b",":
            raise PacketError(f"{_address(part)}: the type tags must begin with a comma.")
        tags_end = part.find(b"\0", tags_at)
        tags = part[tags_at + 1 : tags_end if tags_end >= 0 else len(part)]
        if tags_end < 0 or len(tags) > MAX_ARGUMENTS:
            raise PacketError(f"{_address(part)}: more than {MAX_ARGUMENTS} arguments, or tags without an end.")
        unknown = tags.translate(None, _TAGS)
        if unknown:
            raise PacketError(f"{_address(part)}: the argument type {chr(unknown[0])!r} is not used here.")
        part = part[:tags_at] + b"," + tags.translate(_SYNONYMS) + part[tags_end:]
    try:
        message = OscMessage(part)
    except UnicodeDecodeError:
        raise PacketError(f"{_address(part)}: text must be UTF-8.") from None
    except (MessageParseError, ParseError, ValueError, OverflowError, IndexError) as error:
        raise PacketError(f"{_address(part)}: the arguments end too early.") from error
    return Message(message.address, tuple(message.params))


def _address(part: bytes) -> str:
    """The address of a malformed message, for the error text."""
    return part[: part.find(b"\0")][:100].decode("utf-8", "replace")


def build(address: str, args: Iterable[Any] = ()) -> bytes:
    """One message as a datagram: float `f`, int `i` (`h` beyond 32 bits), str `s`, bool `T`/`F`, bytes `b`.

    Raises:
        PacketError: if a value has no OSC type or the datagram would be too large.
    """
    builder = OscMessageBuilder(address)
    try:
        for value in args:
            builder.add_arg(value)
        datagram = builder.build().dgram
    except (MessageBuildError, BuildError, ValueError, OverflowError, struct.error) as error:
        raise PacketError(f"{address}: a value cannot be sent over OSC ({error}).") from error
    if len(datagram) > MAX_DATAGRAM:
        raise PacketError(f"{address}: {len(datagram)} bytes do not fit a datagram ({MAX_DATAGRAM}).")
    return datagram


Sender = TypeVar("Sender")


def coalesce(batch: Sequence[tuple[bytes, Sender]], latest_wins: Callable[[bytes], bool]) -> list[tuple[bytes, Sender]]:
    """Drop the datagrams of a batch that are superseded by a later one.

    A message with one finite number or one text, at an address for which `latest_wins` is true, is superseded by a
    later one with the same address and type. Everything else (commands, bundles, other types) is kept, and nothing is
    dropped or moved across it, so that for instance a snapshot stores what was set before it.

    Args:
        batch: (datagram, sender) in the order of arrival.
        latest_wins: whether an address (as bytes, without padding) is that of a continuous value.
    """
    kept: list[tuple[bytes, Sender]] = []
    newest: dict[bytes, tuple[bytes, Sender]] = {}
    for item in batch:
        key = _value_key(item[0], latest_wins)
        if key is None:
            kept.extend(newest.values())
            newest.clear()
            kept.append(item)
        else:
            newest.pop(key, None)  # so that the order is that of the latest arrivals
            newest[key] = item
    kept.extend(newest.values())
    return kept


def _value_key(datagram: bytes, latest_wins: Callable[[bytes], bool]) -> bytes | None:
    """Address and type of a message that sets one value; None for everything else."""
    address_end = datagram.find(b"\0")
    if address_end < 0 or not latest_wins(datagram[:address_end]):
        return None
    at = (address_end // 4 + 1) * 4
    tags = datagram[at : at + 4]
    if tags == b",f\0\0":
        if len(datagram) != at + 8 or not math.isfinite(struct.unpack_from(">f", datagram, at + 4)[0]):
            return None
    elif tags == b",i\0\0":
        if len(datagram) != at + 8:
            return None
    elif tags != b",s\0\0":
        return None
    return datagram[: at + 4]
