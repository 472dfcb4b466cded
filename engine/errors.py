"""One error tree for the whole product.

Every error says what was wrong and what to do about it. Foreign exceptions (torch, safetensors, PyAV,
NDI, sockets ...) are mapped to one of these where they enter; code above that seam only catches these.
"""

from __future__ import annotations

from collections.abc import Sequence


class TidecastError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what was wrong, with the offending value.
        remedy: what the user can do about it, as an imperative sentence; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ConfigError(TidecastError):
    """A start-up setting is unknown or has a bad value; names the file and line where there is one."""


class ControlError(TidecastError):
    """A live control message could not be understood; nothing was changed."""

    def __init__(self, address: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.address = address


class ModelError(TidecastError):
    """The model could not be opened or run."""


class WeightsMissingError(ModelError):
    """A model's files are not on this machine; the remedy names the command that gets them."""


class CheckpointError(ModelError):
    """A file does not hold this network: names missing, unexpected and differently shaped keys."""


class OutOfMemoryError(ModelError):
    """The accelerator's (or host's) memory did not suffice."""


class CaptureError(ModelError):
    """Work cannot be captured, or would not do the same when it is replayed."""


class EngineError(TidecastError):
    """The engine process died, hung or failed to start."""


class TransportError(TidecastError):
    """A video source or sink could not be opened, read or written."""


class NameTakenError(TransportError):
    """Another sender on this machine already uses the output's name; the remedy offers a free one."""


class PortInUseError(TidecastError):
    """A UDP or TCP port is already taken; names the port and how to choose another."""


MAX_LISTED = 8
"""Names that an error lists of each kind."""


def listing(kind: str, names: Sequence[str]) -> str:
    """So many `names` of a kind as a part of a sentence, the first of them by name; empty for none."""
    if not names:
        return ""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{len(names)} keys {kind} ({', '.join(names[:MAX_LISTED])}{more})"
