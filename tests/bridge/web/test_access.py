"""Addresses of the page: which stay on this machine, and for which a QR code is drawn."""

from __future__ import annotations

import pytest

from bridge.web.access import is_loopback, new_token, page_url, qr_text, token_for
from engine.errors import ConfigError


def test_loopback_is_recognised() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))
    assert qr_text(page_url("127.0.0.1", 9001)) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    "token",
    ["x", "123456789", "aaaaaaaaaaaaaaaa", "abababababab", "two words!", "a;b=c;defghijk", "naïve-token", "x" * 129],
)
def test_a_token_that_is_easily_guessed_is_refused_with_one_that_is_not(host: str, token: str) -> None:
    with pytest.raises(ConfigError, match=r"web\.token") as refused:
        token_for(host, token)
    assert token not in str(refused.value).split()
    suggested = refused.value.remedy.split("such as ")[1].split(";")[0]
    assert token_for("0.0.0.0", suggested) == suggested


def test_only_beyond_this_machine_a_token_is_needed() -> None:
    assert token_for("127.0.0.1", "") == token_for("localhost", "a-good-token") == ""
    assert token_for("0.0.0.0", "a-good-token") == "a-good-token"
    assert len({token_for("0.0.0.0", "") for _ in range(3)}) == 3
    assert all(token_for("::", token) == token for token in (new_token() for _ in range(200)))
