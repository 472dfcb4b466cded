"""The address at which the control room can be opened, and the same address as a QR code for the terminal."""

from __future__ import annotations

import io
import ipaddress
import re
import secrets
import socket

from engine.errors import ConfigError

TOKEN_LENGTH = 10
"""Fewest characters of a token. One address can try some 8,600 a day (`bridge.web.server.attempts`)."""

TOKEN_DIFFERENT = 6
"""Fewest different characters of a token."""

TOKEN = rf"[A-Za-z0-9._~-]{{{TOKEN_LENGTH},128}}"
"""Regular expression of a token: characters that stand for themselves in an address and in a cookie."""


def is_loopback(host: str) -> bool:
    """Whether listening at `host` keeps the port on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A token that cannot be guessed (96 bits), short enough for a readable QR code."""
    return secrets.token_urlsafe(12)


def token_for(host: str, given: str) -> str:
    """The token that requests need: none when the port stays on this machine, else the given one, else a new one.

    Args:
        host: address to listen at.
        given: the token of the configuration; may be empty.

    Raises:
        ConfigError: if the given token is easily guessed, or cannot stand in an address and a cookie.
    """
    if given and (len(set(given)) < TOKEN_DIFFERENT or not re.fullmatch(TOKEN, given)):
        raise ConfigError(
            "The token of the page (web.token) is too easily guessed, or has characters that an address cannot have.",
            f"Give it {TOKEN_LENGTH} to 128 letters, digits and - . _ ~, at least {TOKEN_DIFFERENT} of them different, "
            f"such as {new_token()}; or leave it empty: Tidecast then makes one at each start.",
        )
    return "" if is_loopback(host) else given or new_token()


def lan_address() -> str:
    """This machine's address in its network, or the loopback address without a network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation; connecting a UDP socket sends no packet
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def page_url(host: str, port: int, token: str = "") -> str:
    """The address to type into a browser."""
    if host in ("0.0.0.0", "::", ""):
        host = lan_address()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def qr_text(url: str) -> str:
    """`url` as a QR code in block characters, for a terminal.

    Empty without the package `qrcode`, and for an address on loopback, which a phone cannot open.
    """
    if is_loopback(url.split("://", 1)[-1].split("/", 1)[0].rsplit(":", 1)[0].strip("[]")):
        return ""
    try:
        import qrcode
    except ImportError:
        return ""
    code = qrcode.QRCode(border=2, error_correction=qrcode.constants.ERROR_CORRECT_L)
    code.add_data(url)
    out = io.StringIO()
    code.print_ascii(out=out, invert=True)
    return out.getvalue()
