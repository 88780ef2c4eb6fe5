import hashlib
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import settings

from annotations import execute_annotations
from batch_server import serve_batches
from bucket import serve_bucket

execute_annotations()  # before the first import of the product

# Read when torch is imported: test processes side by side share the cores.
_BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _BESIDE > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _BESIDE)))
# Read when torch is imported: waiting threads must not take the cores from their neighbours.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read when Prefect is imported.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

# A shell ignores interrupts in what it starts in the background, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every machine that only checks; new ones where people work.
settings.register_profile("engine", max_examples=50, deadline=None, derandomize="CI" in os.environ)
settings.load_profile("engine")

WORDS = [f"{first}{last}" for first in ("stone", "mist", "dusk", "hill") for last in "abcdefghijk"]


def pytest_collection_modifyitems(items):
    """Begin with the files that wait longest for servers: nobody waits for them at the end."""
    items.sort(key=lambda item: "operating" not in item.path.parts)


@pytest.fixture(scope="module")
def browser():
    """A browser that asks nobody on its own account."""
    from playwright.sync_api import sync_playwright  # not there with the oldest versions

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(chromium).exists() and "CI" not in os.environ:
        pytest.skip(f"no {chromium}: install chromium, or set CHROMIUM to a browser of its kind")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield opened
        opened.close()


class ChatServer:
    """A chat endpoint on the loopback interface: plays what is queued, then obeys.

    Attributes:
        queue: Replies to play first: (status, headers, body bytes).
        requests: Bodies received.
        headers: Their headers.
        times: When they came.
        delay: Seconds that an obedient answer takes.
        most_in_flight: Most requests at the same time.
    """

    def __init__(self):
        self.queue, self.requests, self.headers, self.times = [], [], [], []
        self.delay, self.in_flight, self.most_in_flight = 0.0, 0, 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, headers, data = outer.reply(body, dict(self.headers))
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that timed out
                    super().handle_error(request, client_address)

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def reply(self, body, headers):
        with self.lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            queued = self.queue.pop(0) if self.queue else None
        try:
            time.sleep(self.delay)
            return queued or self.completion(self.obey(body))
        finally:
            with self.lock:
                self.in_flight -= 1

    def obey(self, body):
        """Write what the message asks for; the same for the same body."""
        message = body["messages"][-1]["content"]
        count = int(re.search(r"Write (\d+) captions", message)[1])
        names = re.findall(r"^- (.+?)(?:, in the sense of: .*)? \(write ", message, re.MULTILINE)
        texts = []
        for index in range(count):
            seed = hashlib.sha256(f"{body.get('seed')} {message} {index}".encode()).digest()
            words = [WORDS[byte % len(WORDS)] for byte in seed[:14]]
            texts.append(" ".join([*words[:7], *(f"a {name} and" for name in names), *words[7:]]))
        return texts

    def completion(self, texts=(), *, content=None, finish="stop", refusal=None, usage=(100, 50)):
        content = json.dumps({"texts": list(texts)}) if content is None else content
        message = {"role": "assistant", "content": content, "refusal": refusal}
        reply = {
            "id": "x",
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        }
        if usage:
            reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        return 200, {"content-type": "application/json"}, json.dumps(reply).encode()

    def error(self, status, message="no", *, code=None, **headers):
        body = {"error": {"message": message, "code": code, "type": "x", "param": None}}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return status, {"content-type": "application/json", **named}, json.dumps(body).encode()


@pytest.fixture
def chat_server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ChatServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def batch_server(chat_server):
    """A service with a Batch API beside the chat endpoint: `finish`, `batches`, `paid`, `now`."""
    with serve_batches(chat_server) as server:
        yield server


@pytest.fixture
def bucket(monkeypatch):
    """A bucket on this machine, open to `s3://bucket/...`: `root`, `objects`, `reads`."""
    with serve_bucket() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        server.root = "s3://bucket/some/prefix"
        yield server


@pytest.fixture(scope="session", autouse=True)
def everybodys_folders():
    """What is not of the tests keeps its rights: other programs of the machine use it too."""
    folders = {Path("/"), Path.home(), Path(tempfile.gettempdir())}
    before = {folder: oct(folder.stat().st_mode) for folder in folders}
    yield
    assert {folder: oct(folder.stat().st_mode) for folder in folders} == before


@pytest.fixture(scope="session")
def server():
    """A temporary Prefect server that the flows of a test process report to."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield
