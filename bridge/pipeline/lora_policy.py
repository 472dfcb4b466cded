"""Which LoRA files a sender may choose: as for inputs, other machines may not make this one open any file it has.

| sender | may choose |
|---|---|
| `Trust.OPERATOR` | everything |
| `Trust.MACHINE` | everything but files of other machines |
| `Trust.NETWORK` | the files of the configuration (`engine.loras`) |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridge.control.origin import Origin, Trust
from bridge.video.address import opened_by
from bridge.video.table import OpenedBy
from engine.control import PREFIX
from engine.errors import ControlError


class LoraPolicy:
    """The rule of the control `lora_N_file`; see `ControlStore.restrict`.

    Args:
        number: N.
        configured: the files of the configuration.
    """

    def __init__(self, number: int, configured: Iterable[str]) -> None:
        self._address, self._configured = f"{PREFIX}/lora/{number}/file", frozenset(configured)

    def __call__(self, value: Any, origin: Origin) -> str:
        """The file to load.

        Raises:
            ControlError: if the sender may not choose it.
        """
        wanted = str(value)
        if origin.trust >= Trust.OPERATOR or not wanted or wanted in self._configured:
            return wanted
        if origin.trust < Trust.MACHINE:
            raise ControlError(
                self._address,
                f"Senders on other machines may not choose the file {wanted[:100]!r}.",
                "They may choose the files of engine.loras in the configuration.",
            )
        if opened_by(f"file:{wanted}") is OpenedBy.OPERATOR:
            raise ControlError(
                self._address,
                f"{wanted[:100]!r} is on another machine, which only the configuration may name.",
                "Copy the file to this machine, or write it under engine.loras.",
            )
        return wanted
