"""Turns exceptions of foreign libraries into a `TransportError` with a sentence for the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from engine.errors import TidecastError, TransportError

MAX_CHARACTERS = 300
"""Longest reason that is shown; some libraries put whole files into theirs."""


def reason(error: BaseException) -> str:
    """An exception in a few words, without a full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = " ".join(text.split()).rstrip(".")[:MAX_CHARACTERS]
    return text[:1].lower() + text[1:] if text[:2] != text[:2].upper() else text


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
