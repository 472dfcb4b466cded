"""The command `/quit`, which only the program that started Tidecast can use."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Callable
from typing import Any

from bridge.control.store import Caller, ControlStore
from engine.control import PREFIX, Command
from engine.errors import ControlError

log = logging.getLogger(__name__)

QUIT_WORD = "TIDECAST_QUIT_WORD"
"""Environment variable that holds the secret word which `/quit` must carry; set by the program that starts Tidecast."""

QUIT = Command(
    "quit",
    "/quit",
    (("word", "s", True),),
    "Clients",
    "Quit",
    f"End Tidecast in good order; only for the program that started it, by the word that it passed in {QUIT_WORD}.",
)


def obey_quit(store: ControlStore, end: Callable[[], None]) -> Callable[[], None]:
    """Call `end` when the command comes with the right word; returns a function that unregisters it. Without a word
    in the environment the command is always refused."""

    def asked(args: tuple[Any, ...], caller: Caller) -> None:
        word = os.environ.get(QUIT_WORD, "")
        if not word or not hmac.compare_digest(word.encode(), str(args[0]).encode()):
            raise ControlError(PREFIX + QUIT.address, "The word is wrong.")
        log.info("asked to quit by %s", caller.origin.name)
        end()

    return store.on(QUIT.name, asked)
