"""Opens sources and sinks by their addresses, `transport:name`, such as `ndi:STUDIO (OBS)` or `pattern:dance`."""

from __future__ import annotations

import contextlib
import importlib
import logging
from types import ModuleType
from typing import Any, Literal, cast

from bridge.video.address import check_input, check_output, parse_uri
from bridge.video.base import Guide, Options, Sink, Source, SourceInfo
from bridge.video.errors import foreign_errors
from bridge.video.table import find, rows
from engine.errors import TransportError

log = logging.getLogger(__name__)


def open_source(uri: str, options: Options | None = None) -> Source:
    """Open a source by its uri.

    Raises:
        TransportError: the transport is unknown or has no source, or the source cannot be opened.
    """
    return cast(Source, _make("source", uri, options))


def open_sink(uri: str, options: Options | None = None) -> Sink:
    """Open a sink by its uri.

    Raises:
        NameTakenError: the name is in use on this machine.
        TransportError: the transport is unknown or has no sink, or the sink cannot be opened.
    """
    return cast(Sink, _make("sink", uri, options))


def list_sources(transports: tuple[str, ...] | None = None, options: Options | None = None) -> list[SourceInfo]:
    """The sources that can be seen now (the search for NDI sources takes about two seconds).

    Transports that do not work on this machine, or that fail, are left out; `unavailable` says why.
    """
    found: list[SourceInfo] = []
    for scheme in transports or tuple(row.scheme for row in rows()):
        if unavailable(scheme):
            continue
        module = _module(scheme)
        if hasattr(module, "sources"):
            try:
                with foreign_errors(f"The inputs of {scheme}: cannot be listed"):
                    found += module.sources(options or Options())
            except TransportError as error:
                log.warning("%s", error)
    return found


def availability_error(scheme: str) -> TransportError | None:
    """Why a transport does not work on this machine, with the remedy; None if it works."""
    try:
        with foreign_errors(f"{scheme}: cannot be used"):
            module = _module(scheme)
            if hasattr(module, "require"):
                module.require()
    except TransportError as error:
        return error
    return None


def unavailable(scheme: str) -> str:
    """Why a transport does not work on this machine, as a text; empty if it works."""
    return str(availability_error(scheme) or "")


def limits(scheme: str) -> tuple[tuple[str, str], ...]:
    """What works on this machine, but worse than it could: pairs of a sentence and its remedy.

    Raises:
        TransportError: it cannot be found out.
    """
    module = _module(scheme)
    if not hasattr(module, "limits"):
        return ()
    with foreign_errors(f"{scheme}: cannot be examined"):
        return tuple(module.limits())


def guides(uri: str) -> tuple[Guide, ...]:
    """How to receive an output in other programs; empty if they cannot.

    Raises:
        TransportError: unknown transport.
    """
    scheme, name = parse_uri(uri)
    module = _module(scheme)
    return tuple(module.guides(name)) if hasattr(module, "guides") else ()


def _make(direction: Literal["source", "sink"], uri: str, options: Options | None) -> Any:
    scheme, name = parse_uri(uri)
    if direction == "source":
        check_input(uri)
    else:
        check_output(uri)
    with foreign_errors(f"{uri} cannot be opened"):
        made = getattr(_module(scheme), direction)(name, options or Options())
        try:
            made.open()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                made.close()
            raise
        return made


def _module(scheme: str) -> ModuleType:
    row = find(scheme)
    assert row is not None
    return importlib.import_module(row.module)
