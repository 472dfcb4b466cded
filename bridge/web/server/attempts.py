"""Bounds how many tokens one address can try.

A wrong token that is given again costs nothing: a browser that kept the token of an earlier show asks with it for as
long as its page is open, and must not shut out the person who then opens the right address.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable

from bridge.allowance import Allowance

TRIES = 20
"""Wrong tokens that an address may give at once."""

TRIES_PER_S = 0.1
"""Wrong tokens that it may give in the long run."""

MAX_KEPT = 32
"""Wrong tokens of one address that are remembered."""

MAX_ADDRESSES = 1024


class Verdict(enum.Enum):
    """What came of a request's tokens."""

    RIGHT = enum.auto()
    WRONG = enum.auto()
    TOO_MANY = enum.auto()
    """They were not looked at."""


class _Tried:
    """What one address has tried."""

    def __init__(self) -> None:
        self.allowance = Allowance(TRIES_PER_S, TRIES)
        self.wrong: OrderedDict[bytes, None] = OrderedDict()


class Attempts:
    """Compares the tokens of requests with the right one.

    Args:
        token: the right one.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode("utf-8", "surrogatepass")
        self._addresses: OrderedDict[str, _Tried] = OrderedDict()

    def check(self, address: str, given: Iterable[str]) -> Verdict:
        """Look at the tokens that a request carries.

        Args:
            address: see `bridge.connections.address_key`.
            given: the tokens; there may be none.
        """
        tried = self._addresses.setdefault(address, _Tried())
        self._addresses.move_to_end(address)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        for text in given:
            token = text.encode("utf-8", "surrogatepass")
            digest = hashlib.sha256(token).digest()
            if digest in tried.wrong:
                tried.wrong.move_to_end(digest)
                continue
            if tried.allowance.left < 1.0:
                return Verdict.TOO_MANY
            if hmac.compare_digest(token, self._token):
                return Verdict.RIGHT
            tried.allowance.take()
            tried.wrong[digest] = None
            if len(tried.wrong) > MAX_KEPT:
                tried.wrong.popitem(last=False)
        return Verdict.WRONG
