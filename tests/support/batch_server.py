"""A service with a Batch API on this machine, whose clock and mishaps belong to the test."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

__all__ = ["BatchServer", "serve_batches"]

NOON = 1_800_000_000.0
"""When the service's clock starts, seconds since the epoch."""


class BatchServer:
    """What the service keeps, and how it is to behave.

    Attributes:
        now: Its clock.
        files: Content by id.
        batches: Batches by id, as the service describes them.
        calls: Requests to the Batch API, as method and path.
        paid: How often each call was answered in a batch, by key.
        has_api: Whether there is a Batch API.
        has_pages: Whether it knows which page of a list is asked for.
        most_listed: Most batches of a page.
        room: Calls that it takes in before it says that there is no room; None for no limit.
        drops: Method and path whose next response is lost on its way.
        on_request: Called with method and path before anything is done.
        on_done: The same when it is done, before anything is answered.
        refusal: Status and words with which everything that is sent is refused.
    """

    def __init__(self, chat: Any) -> None:
        self.chat = chat
        self.now = NOON
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.paid: Counter[str] = Counter()
        self.has_api, self.has_pages, self.room = True, True, None
        self.most_listed = 100
        self.drops: list[str] = []
        self.on_request: Callable[[str], None] = lambda _: None
        self.on_done: Callable[[str], None] = lambda _: None
        self.refusal: tuple[int, str] | None = None
        self.lock = threading.RLock()
        self.url = ""

    # what the test lets happen

    def requests_of(self, batch_id: str) -> dict[str, dict[str, Any]]:
        data = self.files[self.batches[batch_id]["input_file_id"]]
        lines = [json.loads(line) for line in data.splitlines()]
        return {line["custom_id"]: line["body"] for line in lines}

    def answer(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """The line of a call that is answered, as the chat service would answer it."""
        self.paid[key] += 1
        reply = json.loads(self.chat.completion(self.chat.obey(body))[2])
        response = {"status_code": 200, "request_id": f"r-{key[:8]}", "body": reply}
        return {"id": f"l-{key[:8]}", "custom_id": key, "response": response, "error": None}

    @staticmethod
    def fault(key: str, status: int, message: str = "no", code: str | None = None) -> dict:
        body = {"error": {"message": message, "code": code, "type": "x", "param": None}}
        response = {"status_code": status, "request_id": "r", "body": body}
        return {"id": "l", "custom_id": key, "response": response, "error": None}

    @staticmethod
    def unfinished(key: str, code: str = "batch_expired") -> dict[str, Any]:
        error = {"code": code, "message": "this request could not be executed in time"}
        return {"id": "l", "custom_id": key, "response": None, "error": error}

    def finish(
        self,
        batch_id: str,
        status: str = "completed",
        output: list[dict[str, Any]] | None = None,
        errors: list[dict[str, Any]] = [],  # noqa: B006 - read only
        raw: bytes = b"",
    ) -> None:
        """End a batch; by default every call is answered, the last one first."""
        if output is None:
            asked = list(self.requests_of(batch_id).items())
            output = [self.answer(key, body) for key, body in reversed(asked)]
        batch = self.batches[batch_id]
        batch["status"] = status
        for name, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines or (raw and name == "output_file_id"):
                data = "".join(json.dumps(line) + "\n" for line in lines).encode() + raw
                batch[name] = self.keep(data)

    def keep(self, data: bytes) -> str:
        file_id = f"file-{len(self.files):04d}"
        self.files[file_id] = data
        return file_id

    def open(self) -> list[str]:
        ended = {"completed", "failed", "expired", "cancelled"}
        return [name for name, each in self.batches.items() if each["status"] not in ended]

    # what the service does

    def handle(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, dict, bytes]:
        path, _, query = path.removeprefix("/v1").partition("?")
        if path == "/chat/completions":
            return self.chat.reply(json.loads(body), dict(headers))
        self.calls.append(f"{method} {path}")
        self.on_request(f"{method} {path}")
        if not self.has_api:
            return self.chat.error(404, "Not Found")
        if self.refusal is not None and method == "POST":
            return self.chat.error(*self.refusal)
        with self.lock:
            if (method, path) == ("GET", "/batches"):
                return self.said(self.page(parse_qs(query)))
            return self.route(method, path, body, headers)

    def page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """A page of the list of batches, the newest first."""
        newest = list(reversed(self.batches.values()))
        after = [index for index, each in enumerate(newest) if each["id"] in query.get("after", ())]
        start = after[0] + 1 if after and self.has_pages else 0
        size = min(self.most_listed, int(query.get("limit", ["20"])[0]))
        has_more = start + size < len(newest)
        return {"object": "list", "data": newest[start : start + size], "has_more": has_more}

    def route(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, dict, bytes]:
        if (method, path) == ("POST", "/files"):
            return self.said({"id": self.keep(part_of(body, headers)), "object": "file"})
        if (method, path) == ("POST", "/batches"):
            return self.said(self.make(json.loads(body)))
        if found := re.fullmatch(r"/batches/([\w-]+)", path):
            batch = self.batches.get(found[1])
            return self.said(batch) if batch else self.chat.error(404, "no such batch")
        if found := re.fullmatch(r"/files/([\w-]+)/content", path):
            data = self.files.get(found[1])
            if data is None:
                return self.chat.error(404, "no such file")
            return 200, {"content-type": "application/octet-stream"}, data
        return self.chat.error(404, "Not Found")

    def make(self, wanted: dict[str, Any]) -> dict[str, Any]:
        batch = {
            "id": f"batch-{len(self.batches):04d}",
            "object": "batch",
            "endpoint": wanted["endpoint"],
            "completion_window": wanted["completion_window"],
            "input_file_id": wanted["input_file_id"],
            "metadata": wanted.get("metadata"),
            "status": "validating",
            "created_at": int(self.now),
            "expires_at": int(self.now) + 86_400,
        }
        self.batches[batch["id"]] = batch
        asked = len(self.requests_of(batch["id"]))
        if self.room is not None and asked > self.room:
            problem = {"code": "token_limit_exceeded", "message": "enqueued token limit reached"}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [problem]}}
        return batch

    @staticmethod
    def said(value: Any) -> tuple[int, dict, bytes]:
        return 200, {"content-type": "application/json"}, json.dumps(value).encode()


def part_of(body: bytes, headers: Any) -> bytes:
    """The file in a form with several parts."""
    boundary = re.search(r'boundary="?([^";]+)', headers["content-type"])[1].encode()
    for part in body.split(b"--" + boundary):
        head, _, data = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            return data.removesuffix(b"\r\n")
    message = "the form has no file"
    raise AssertionError(message)


@contextmanager
def serve_batches(chat: Any) -> Iterator[BatchServer]:
    """Serve a Batch API beside the chat endpoint of a test, at one address."""
    outer = BatchServer(chat)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, data = outer.handle(self.command, self.path, body, self.headers)
            called = f"{self.command} {self.path.partition('?')[0].removeprefix('/v1')}"
            outer.on_done(called)
            if called in outer.drops:
                outer.drops.remove(called)
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815 - what the server calls

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that was killed

    http = Server(("127.0.0.1", 0), Handler)
    outer.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield outer
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
