"""The exceptions of the whole program.

Every error says what was wrong and what the user can do about it. Exceptions of libraries (torch, safetensors, PyAV,
NDI, sockets, ...) are converted to one of these where the library is called; all other code catches only these.
"""

from __future__ import annotations

from collections.abc import Sequence


class TidecastError(Exception):
    """Base class of all errors that the program raises on purpose.

    Args:
        message: what was wrong, with the invalid value.
        remedy: what the user can do about it, as an imperative sentence; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ConfigError(TidecastError):
    """A start-up setting is unknown or has an invalid value; names the file and line if it comes from a file."""


class ControlError(TidecastError):
    """A live control message could not be understood; nothing was changed."""

    def __init__(self, address: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.address = address


class ModelError(TidecastError):
    """The model could not be opened or run."""


class WeightsMissingError(ModelError):
    """A model's files are not on this machine; the remedy names the command that downloads them."""


class CheckpointError(ModelError):
    """A file does not contain this network; names missing keys, unexpected keys and keys with other shapes."""


class OutOfMemoryError(ModelError):
    """The memory of the GPU or host is not sufficient."""


class CaptureError(ModelError):
    """Work cannot be captured, or a replay would give other results."""


class EngineError(TidecastError):
    """The engine process died, hung or failed to start."""


class TransportError(TidecastError):
    """A video source or sink could not be opened, read or written."""


class NameTakenError(TransportError):
    """Another sender on this machine already uses the output's name; the remedy offers a free one."""


class SharedMemoryError(TidecastError):
    """The memory for frames between two processes could not be reserved; says how much is needed and there."""


class PortInUseError(TidecastError):
    """A UDP or TCP port is already taken; names the port and how to choose another."""


MAX_LISTED = 8
"""Largest number of names of each kind that an error message lists."""


def listing(kind: str, names: Sequence[str]) -> str:
    """Part of a sentence with the number of `names` and the first of them; empty if there are none."""
    if not names:
        return ""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{len(names)} keys {kind} ({', '.join(names[:MAX_LISTED])}{more})"
