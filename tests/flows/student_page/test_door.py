"""What the door of the page lets through."""

import anyio
import pytest

from flows.student_page.door import PageDoor

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def ask(path, host="127.0.0.1:7860", names=LOCAL, kind="http"):
    """The status and headers of an answer; what is inside answers 200."""
    sent = []

    async def inside(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b"page"})

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": [(b"host", host.encode())]}
    anyio.run(PageDoor(inside, names), scope, receive, send)
    return (sent[0]["status"], dict(sent[0]["headers"])) if sent else (None, {})


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/a.js", "/gradio_api/upload", "/gradio_api/queue/join"],
)
def test_what_the_page_needs_comes_through_and_tells_the_browser_to_stay(path):
    status, headers = ask(path)
    assert (status, headers[b"x"]) == (200, b"y")
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'self'; script-src 'self' 'unsafe-inline';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize(
    "path",
    [
        *("/docs", "/openapi.json", "/monitoring", "/login", "/token", "/dev/reload"),
        *("/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/vibe-edit"),
        *("/gradio_api/run/predict", "/gradio_api/call/x", "/gradio_api/deep_link"),
        *("/gradio_api/proxy=https://x.hf.space/a", "/gradio_api/file=https://example.org/a"),
        *("/assets/../config.py", "/gradio_api/file=/tmp/../etc/hostname", "/gradio_api/mcp/sse"),
    ],
)
def test_everything_else_is_shut_out(path):
    assert ask(path)[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:7860", 200), ("localhost", 200), ("[::1]:7860", 200), ("LOCALHOST:1", 200)),
        *(("evil.example:7860", 421), ("", 421), ("127.0.0.1.evil.example", 421)),
    ],
)
def test_a_name_that_is_not_this_machines_is_refused(host, status):
    assert ask("/", host)[0] == status
    assert ask("/", host, frozenset())[0] == 200


def test_websockets_do_not_come_through():
    assert ask("/", kind="websocket") == (None, {})
