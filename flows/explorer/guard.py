"""Who may ask the explorer's server: the browser that was given the address, and nobody else.

Every path begins with a random token, so that other users of the machine and pages of other
addresses can read nothing. A page of another server whose name was made to point to this machine
(DNS rebinding) is known by that name. What changes something has to come from the page itself: a
browser tells where a request comes from, and sends our own header to another origin never without
asking first.
"""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-magicseg"
"""Our own header of what changes something."""
MAX_BODY = 64 * 1024
"""Bytes of a request."""

_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE = frozenset({"GET", "HEAD"})
_PROTECTION: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Lets through what comes from the page.

    Args:
        app: What is guarded; it sees paths without the token.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.token = secrets.token_urlsafe(24)
        self.opening = secrets.token_urlsafe(24)
        """Leads to the page once: a browser's command line can be read by other users."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        answer = self._answer(scope)
        if answer is None:
            await self._pass(scope, receive, _protected(send))
        else:
            await answer(scope, receive, _protected(send))

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered without asking the application; None if it is to be asked."""
        headers = Headers(scope=scope)
        if not _is_ours(headers.get("host", "")):
            return _refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server is asked for by 127.0.0.1 or localhost alone",
            )
        first, slash, _ = str(scope["path"]).removeprefix("/").partition("/")
        if self.opening and _same(str(scope["path"]), f"/open/{self.opening}"):
            self.opening = ""
            return RedirectResponse(f"/{self.token}/", HTTPStatus.SEE_OTHER)
        if not _same(first, self.token):
            return _refuse(
                HTTPStatus.FORBIDDEN,
                "the address is not that of the explorer that runs now: take the one that it has "
                "printed",
            )
        if not slash:
            return RedirectResponse(f"/{self.token}/", HTTPStatus.SEE_OTHER)
        if scope["method"] in _SAFE:
            return None
        return _refuse_foreign(headers)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope["path"]).removeprefix(f"/{self.token}")
        inner = {**scope, "path": path, "raw_path": path.encode("utf-8", "replace")}
        body = await _whole_body(receive)
        if body is None:
            await _refuse_large()(scope, receive, send)
        else:
            await self._app(inner, _replayed(body, receive), send)


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _is_ours(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _HOSTS
    except ValueError:
        return False


def _refuse_foreign(headers: Headers) -> Response | None:
    """Refuse a change that does not come from the page; None if it does."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return _refuse(HTTPStatus.FORBIDDEN, "changes are taken from the explorer's page alone")
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return _refuse(HTTPStatus.FORBIDDEN, "changes are taken from the explorer's page alone")
    kind = headers.get("content-type", "").partition(";")[0].strip()
    if HEADER not in headers or kind != "application/json":
        return _refuse(
            HTTPStatus.FORBIDDEN, f"expected application/json and the header {HEADER}, as the page"
        )
    if int(headers.get("content-length", "0") or 0) > MAX_BODY:
        return _refuse_large()
    return None


def _refuse(status: HTTPStatus, why: str) -> Response:
    return PlainTextResponse(why + "\n", status)


def _refuse_large() -> Response:
    why = f"expected at most {MAX_BODY} bytes in a request"
    return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)


async def _whole_body(receive: Receive) -> bytes | None:
    """The body of a request; None if it is larger than any of the page's."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then what comes after it."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _protected(send: Send) -> Send:
    async def protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _PROTECTION.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return protected
