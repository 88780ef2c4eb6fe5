"""The door of the page: it lets through what the page needs, and shuts out the rest.

Gradio serves more than its page: a description of its API, a proxy, pages that write code. None of
it is wanted here. A browser is told to fetch nothing from elsewhere, and a name that is not this
machine's is refused, so that no other site can reach the page through a name of its own.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_FILES = ("/assets/", "/static/", "/svelte/")
_API = "/gradio_api"
_EXACT = frozenset(
    {
        "/",
        "/config",
        "/theme.css",
        "/favicon.ico",
        "/manifest.json",
        f"{_API}/upload",
        f"{_API}/upload_progress",
        f"{_API}/queue/join",
        f"{_API}/queue/data",
        f"{_API}/cancel",
        f"{_API}/reset",
        f"{_API}/startup-events",
    }
)
_BEGINNINGS = (*_FILES, f"{_API}/heartbeat/", f"{_API}/file=/")

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
        b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class PageDoor:
    """Stands before the page as its ASGI application.

    Args:
        inside: The page.
        names: Host names by which it may be called; empty for any.
    """

    def __init__(self, inside: _App, names: frozenset[str]) -> None:
        self._inside = inside
        self._names = names

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self._inside(scope, receive, send)
        elif scope["type"] == "http":
            status = self._refusal(scope)
            if status:
                await _refuse(status, send)
            else:
                await self._inside(scope, receive, _with_headers(send))

    def _refusal(self, scope: _Message) -> int:
        """The status of a request that stays outside; 0 for another."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._names and _without_port(host) not in self._names:
            return 421
        path = str(scope["path"])
        if ".." in path or not (path in _EXACT or path.startswith(_BEGINNINGS)):
            return 404
        return 0


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0]


def _with_headers(send: _Send) -> _Send:
    async def forward(message: _Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return forward


async def _refuse(status: int, send: _Send) -> None:
    headers = [(b"content-type", b"text/plain"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"there is nothing here\n"})
