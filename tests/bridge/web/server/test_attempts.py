"""Tokens that are tried: how many, by whom, and who is not shut out."""

from __future__ import annotations

import pytest

from bridge.web.server import attempts
from bridge.web.server.attempts import MAX_ADDRESSES, MAX_KEPT, TRIES, Attempts, Verdict

RIGHT = "a-right-token"


def test_an_address_can_try_few_tokens_and_the_right_one_waits_too() -> None:
    """Otherwise the bound would be none: who may always give the right one may always guess."""
    tried = Attempts(RIGHT)
    verdicts = [tried.check("192.0.2.1", [f"guess {number}"]) for number in range(1000)]
    assert verdicts.count(Verdict.WRONG) == TRIES
    assert tried.check("192.0.2.1", [RIGHT]) is Verdict.TOO_MANY
    assert tried.check("192.0.2.2", [RIGHT]) is Verdict.RIGHT, "another address"


def test_several_tokens_in_one_request_count_each() -> None:
    tried = Attempts(RIGHT)
    assert tried.check("192.0.2.1", map(str, range(1000))) is Verdict.TOO_MANY
    assert tried.check("192.0.2.1", [RIGHT]) is Verdict.TOO_MANY


def test_an_old_token_that_is_given_again_and_again_shuts_nobody_out() -> None:
    tried = Attempts(RIGHT)
    for _ in range(1000):
        assert tried.check("192.0.2.1", ["the token of yesterday"]) is Verdict.WRONG
        assert tried.check("192.0.2.1", []) is Verdict.WRONG
    assert tried.check("192.0.2.1", ["the token of yesterday", RIGHT]) is Verdict.RIGHT


def test_after_a_while_an_address_may_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "TRIES_PER_S", 1e6)
    tried = Attempts(RIGHT)
    for number in range(5 * TRIES):
        tried.check("192.0.2.1", [str(number)])
    assert tried.check("192.0.2.1", [RIGHT]) is Verdict.RIGHT


def test_what_is_remembered_is_bounded() -> None:
    tried = Attempts(RIGHT)
    for number in range(3 * MAX_ADDRESSES):
        tried.check(str(number), ["x", "y"])
    assert len(tried._addresses) == MAX_ADDRESSES
    assert all(len(address.wrong) <= MAX_KEPT for address in tried._addresses.values())
