"""Turns exceptions of foreign libraries into a `TransportError` with a sentence for the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from engine.errors import TidecastError, TransportError

MAX_CHARACTERS = 300
"""Longest reason that is shown; some libraries put whole files into theirs."""


def reason(error: BaseException) -> str:
    """An exception in a few words, without a full stop."""
    text = " ".join((getattr(error, "strerror", None) or str(error)).split()).rstrip(".")[:MAX_CHARACTERS]
    if not text:
        return type(error).__name__
    return text if text[:2].isupper() else text[0].lower() + text[1:]


@contextlib.contextmanager
def foreign_errors(what: str, remedy: str = "") -> Iterator[None]:
    """Raise whatever the block raises as a `TransportError`: "`what`: reason." Errors of the program stay as they are.

    Args:
        what: what could not be done, such as "file:x.mp4 cannot be opened".
        remedy: what the user can do about it.
    """
    try:
        yield
    except TidecastError:
        raise
    except Exception as error:  # a library may raise anything; nothing of it may reach the threads of the show
        raise TransportError(f"{what}: {reason(error)}.", remedy) from error
