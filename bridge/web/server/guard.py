"""Decides who may use the control room: Host, Origin and token checks, and the security headers of every response.

An ASGI middleware around the whole application. In order, it checks the Host header (against DNS rebinding), the Origin
header (against pages of other sites) and the token (when the port is open to the network).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import parse_qs, quote, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.connections import address_key
from bridge.web.access import is_loopback
from bridge.web.server.attempts import Attempts, Verdict

COOKIE = "tidecast_token"
COOKIE_DAYS = 30
MAX_COOKIES = 4
"""Cookies of this name that are looked at in one request."""

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def host_name(header: str) -> str:
    """The host name in a Host header, in lower case, without port and brackets; "" if the header is malformed."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?", header)
    return (match[1] or match[2]).lower().rstrip(".") if match else ""


class Guard:
    """ASGI middleware that refuses requests before the application sees them.

    Args:
        app: the guarded application.
        host: the address that the server listens at; decides which Host headers are accepted.
        token: if not empty, every request must carry it: as `?token=` in the address (a page is then redirected and
            gets a cookie), as that cookie, or as `Authorization: Bearer`.
    """

    def __init__(self, app: ASGIApp, host: str, token: str = "") -> None:
        self._app = app
        self._token = token
        self._attempts = Attempts(token)
        self._any_address = not is_loopback(host)
        own = {*_LOOPBACK_NAMES, host.lower()}
        if self._any_address:
            here = socket.gethostname().lower()
            own |= {here, here.split(".")[0], here.split(".")[0] + ".local"}
        self._names = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one connection and pass it on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
            return
        given = _token_in_address(scope)
        if self._token and given and scope["type"] == "http" and "text/html" in headers.get("accept", ""):
            await self._keep_token(scope, send)
            return
        await self._app(scope, receive, _with_headers(send, headers.get("host", "")))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason if the connection is not allowed; else None."""
        authority = headers.get("host", "")
        name = host_name(authority)
        if not name or not (name in self._names or (self._any_address and _is_address(name))):
            return 421, "This address does not belong to Tidecast."
        origin = headers.get("origin")
        acting = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if origin is not None and acting and not _same(origin, authority):
            return 403, "Another site may not control Tidecast."
        site = headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none") and not (
            not acting and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        ):
            return 403, "Another site may not control Tidecast."
        if not self._token:
            return None
        match self._attempts.check(address_key(scope.get("client")), _tokens(scope, headers)):
            case Verdict.RIGHT:
                return None
            case Verdict.WRONG:
                return 401, "The token is missing or wrong. Open the address that Tidecast printed when it started."
            case Verdict.TOO_MANY:
                return 429, "Too many wrong tokens came from this address. Wait ten seconds, then open the right one."

    async def _keep_token(self, scope: Scope, send: Send) -> None:
        """Answer a page request with the token in its address: set the cookie and redirect to the plain address."""
        cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_DAYS * 86400}"
        path = quote("/" + scope["path"].lstrip("/"))
        headers = [
            (b"location", path.encode()),
            (b"set-cookie", cookie.encode()),
            (b"content-length", b"0"),
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _headers(scope: Scope) -> dict[str, str]:
    """Header fields by lower-case name. Repeated fields are joined, so a second Host or Origin makes it malformed."""
    out: dict[str, list[str]] = {}
    for raw, value in scope["headers"]:
        out.setdefault(raw.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return {name: ("; " if name == "cookie" else ", ").join(values) for name, values in out.items()}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(origin: str, authority: str) -> bool:
    """Whether an Origin header names the same authority (name and port) as the Host header."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == authority.lower()


def _token_in_address(scope: Scope) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    if len(query) > 4096:
        return ""
    return str(parse_qs(query).get("token", [""])[0])


def _tokens(scope: Scope, headers: dict[str, str]) -> Iterable[str]:
    if in_address := _token_in_address(scope):
        yield in_address
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield credentials.strip()
    # By hand: the parser of Python's library takes minutes for some cookies of 64 kB, in versions up to 3.12.4.
    # All of them, because other programs of this machine, on other ports, can set a cookie of this name.
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    yield from [value for name, _, value in pairs if name == COOKIE][:MAX_COOKIES]


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": reason[:100]})
        return
    body = reason.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send, authority: str) -> Send:
    """`send`, adding the security headers to every response."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        f"connect-src 'self' ws://{authority} wss://{authority}; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    own = [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    ]

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        await send(message)

    return guarded
