"""Addresses of the page: which stay on this machine, and for which a QR code is drawn."""

from __future__ import annotations

from bridge.web.access import is_loopback, page_url, qr_text


def test_loopback_is_recognised() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))
    assert qr_text(page_url("127.0.0.1", 9001)) == ""
