"""A bad line to a bucket: a proxy that refuses some requests and loses some answers."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class TroubledLine(BaseHTTPRequestHandler):
    """Passes a request on; whether its answer arrives is a matter of chance."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.server.fate()
        if fate == "refused":
            self.give(503, [], b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")
            return
        # the signature is not checked: the bucket of the tests does not know the secret
        upstream = HTTPConnection("127.0.0.1", self.server.upstream, timeout=20)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if fate == "lost":
            self.close_connection = True
        elif fate == "cut":
            self.give(answer.status, answer.getheaders(), data, sent=len(data) // 2)
            self.close_connection = True
        else:
            self.give(answer.status, answer.getheaders(), data)

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self.pass_on
        raise AttributeError(name)

    def give(self, status: int, headers: list, data: bytes, *, sent: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else str(len(data))
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data[:sent])


@contextmanager
def serve_troubled_line(
    upstream: int,
    host: str = "127.0.0.1",
    *,
    refused: float = 0.2,
    lost: float = 0.05,
    cut: float = 0.05,
) -> Iterator[ThreadingHTTPServer]:
    """Serve a port of this machine badly; ``server.fates`` counts what happened to requests."""
    server = ThreadingHTTPServer((host, 0), TroubledLine)
    server.daemon_threads = True
    server.upstream, server.fates = upstream, Counter()
    chance = random.Random(0)  # noqa: S311 - no secret
    weights = [refused, lost, cut, 1 - refused - lost - cut]

    def fate() -> str:
        drawn = chance.choices(["refused", "lost", "cut", "passed"], weights)[0]
        server.fates[drawn] += 1
        return drawn

    server.fate = fate
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
