"""Opens a place that video comes from or goes to, written `transport:name`: `ndi:STUDIO (OBS)`, `pattern:dance`."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Literal, cast

from bridge.video.base import Guide, Options, Sink, Source, SourceInfo
from bridge.video.table import find, rows
from engine.errors import TransportError


def parse_uri(uri: str) -> tuple[str, str]:
    """Split `transport:name`.

    Raises:
        TransportError: no such transport; the remedy names those that exist.
    """
    scheme, colon, name = uri.strip().partition(":")
    scheme = scheme.lower()
    if not colon or find(scheme) is None:
        known = ", ".join(f"{row.scheme}:" for row in rows())
        raise TransportError(f"{uri!r} names no video transport.", f"Begin it with one of {known}")
    return scheme, name.strip()


def open_source(uri: str, options: Options | None = None) -> Source:
    """Open a source by its uri.

    Raises:
        TransportError: unknown transport, one that has no source, or one that cannot be opened here.
    """
    return cast(Source, _make("source", uri, options))


def open_sink(uri: str, options: Options | None = None) -> Sink:
    """Open a sink by its uri.

    Raises:
        NameTakenError: the name is in use on this machine.
        TransportError: unknown transport, one that has no sink, or one that cannot be opened here.
    """
    return cast(Sink, _make("sink", uri, options))


def list_sources(transports: tuple[str, ...] | None = None, options: Options | None = None) -> list[SourceInfo]:
    """Everything that can be seen now (looking for NDI sources takes about two seconds).

    Transports that cannot work here are left out; `unavailable` says why.
    """
    found: list[SourceInfo] = []
    for scheme in transports or tuple(row.scheme for row in rows()):
        module = _module(scheme)
        if hasattr(module, "sources") and not unavailable(scheme):
            found += module.sources(options or Options())
    return found


def lacking(scheme: str) -> TransportError | None:
    """Why a transport cannot work on this machine, with the remedy; None when it can."""
    module = _module(scheme)
    if hasattr(module, "require"):
        try:
            module.require()
        except TransportError as error:
            return error
    return None


def unavailable(scheme: str) -> str:
    """`lacking` as a text; empty when nothing is."""
    return str(lacking(scheme) or "")


def guides(uri: str) -> tuple[Guide, ...]:
    """How to get the picture of an output into other programs; empty where they cannot see it.

    Raises:
        TransportError: unknown transport.
    """
    scheme, name = parse_uri(uri)
    module = _module(scheme)
    return tuple(module.guides(name)) if hasattr(module, "guides") else ()


def _make(direction: Literal["source", "sink"], uri: str, options: Options | None) -> Any:
    scheme, name = parse_uri(uri)
    row = find(scheme)
    assert row is not None
    if not (row.reads if direction == "source" else row.writes):
        able = ", ".join(f"{r.scheme}:" for r in rows() if (r.reads if direction == "source" else r.writes))
        kind = "input" if direction == "source" else "output"
        raise TransportError(f"{scheme}: has no {kind} ({uri!r}).", f"Choose one of {able}")
    made = getattr(_module(scheme), direction)(name, options or Options())
    made.open()
    return made


def _module(scheme: str) -> ModuleType:
    row = find(scheme)
    assert row is not None
    return importlib.import_module(row.module)
