"""A bucket on this machine that speaks as much of the S3 protocol as the store uses."""

import hashlib
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape, unescape


class Bucket(BaseHTTPRequestHandler):
    """Objects in memory; conditional writes are atomic, as S3 has them since 2024."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer's head and body would be 40 ms apart
    objects: dict[str, bytes]
    lock: threading.Lock
    times: dict[str, float]
    answers_to_lose: list[str]
    parts: dict[int, bytes]
    reads: list[str]
    name = "bucket"

    def log_message(self, *args: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.objects, self.lock = self.server.objects, self.server.lock
        self.times = self.server.times
        self.answers_to_lose, self.parts = self.server.answers_to_lose, self.server.parts
        self.reads = self.server.reads

    def parse_request(self) -> bool:
        """Read a request; what is refused or broken off is no further affair of this class."""
        if not super().parse_request():
            return False
        self.server.requests.append((self.command, self.path))
        trouble = self.server.trouble
        if trouble is None and self.named() == self.name:
            return True
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if trouble is None:
            self.refuse(404, "NoSuchBucket", "The specified bucket does not exist")
        elif isinstance(trouble, tuple):
            self.refuse(*trouble)
        else:
            getattr(self, f"answer_{trouble}")()
        return False

    def named(self) -> str:
        return urllib.parse.unquote(self.url.path).split("/")[1]

    def refuse(self, status: int, code: str, message: str = "no") -> None:
        error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        self.answer(status, error.encode())

    def answer_never(self) -> None:
        """Keep the line open until the client gives up."""
        self.connection.settimeout(20)
        self.rfile.read(1)
        self.close_connection = True

    def answer_cut(self, data: bytes = bytes(100)) -> None:
        """Announce more than is sent, as a server that dies does; the rest is not given either."""
        first = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-999/1000")
        self.send_header("Content-Length", str(1000 - first))
        self.send_header("ETag", tag(b"cut"))
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.end_headers()
        self.wfile.write(data[: 1 if first else None])
        self.close_connection = True

    def answer_reset(self) -> None:
        """Break the connection off."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def answer_login_page(self) -> None:
        """Answer as the portal of a hotel does."""
        self.answer(200, b"<html>welcome, your room number?</html>")

    @property
    def url(self) -> urllib.parse.ParseResult:
        return urllib.parse.urlparse(self.path)

    @property
    def key(self) -> str:
        return urllib.parse.unquote(self.url.path).removeprefix("/bucket/")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.reads.append(self.path)
        self.answer_read()

    def answer_read(self) -> None:
        if "list-type=2" in self.url.query:
            self.list_objects()
            return
        data = self.objects.get(self.key)
        if data is None:
            self.answer(404)
            return
        known = {"ETag": tag(data), "Last_Modified": formatdate(self.times[self.key], usegmt=True)}
        wanted = self.headers.get("Range")
        if wanted is None:
            length = {"Content_Length": str(len(data))} if self.command == "HEAD" else {}
            self.answer(200, data, **known, **length)
            return
        first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        span = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        self.answer(206, part, Content_Range=span, **known)

    def do_HEAD(self) -> None:
        self.answer_read()

    def list_objects(self) -> None:
        query = urllib.parse.parse_qs(self.url.query)
        prefix, after = (query.get(name, [""])[0] for name in ("prefix", "continuation-token"))
        # a copy at once: writers go on meanwhile
        found = sorted(key for key in list(self.objects) if key.startswith(prefix) and key > after)
        cut = len(found) > self.server.page_size
        found = found[: self.server.page_size]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            f"<LastModified>2026-11-20T09:00:00.000Z</LastModified>"
            f"<ETag>{escape(tag(self.objects[key]))}</ETag></Contents>"
            for key in found
        )
        more = f"<NextContinuationToken>{escape(found[-1])}</NextContinuationToken>" if cut else ""
        start = f"<IsTruncated>{str(cut).lower()}</IsTruncated>{more}"
        self.answer(200, f"<ListBucketResult>{start}{items}</ListBucketResult>".encode())

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = urllib.parse.parse_qs(self.url.query)
        if "partNumber" in query:
            self.parts[int(query["partNumber"][0])] = data
            self.answer(200, ETag=tag(data))
            return
        source = self.headers.get("x-amz-copy-source")
        with self.lock:
            if source is not None:
                data = self.objects.get(urllib.parse.unquote(source).removeprefix("bucket/"))
            if data is None:
                self.answer(404)
                return
            if not self.is_expected():
                self.answer(412)
                return
            self.store(data)
        if any(self.key.endswith(lost) for lost in self.answers_to_lose):
            self.answers_to_lose.clear()
            self.answer(500)
            return
        copied = f"<CopyObjectResult><ETag>{tag(data)}</ETag></CopyObjectResult>".encode()
        self.answer(200, copied if source else b"", ETag=tag(data))

    def store(self, data: bytes) -> None:
        self.times[self.key] = self.server.clock()
        self.objects[self.key] = data

    def is_expected(self) -> bool:
        current = self.objects.get(self.key)
        if self.headers.get("If-None-Match") == "*" and current is not None:
            return False
        expected = self.headers.get("If-Match")
        return expected is None or (current is not None and tag(current) == expected)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.url.query.startswith("delete"):
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for key in keys:
                self.objects.pop(unescape(key), None)
            gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self.answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
        elif self.url.query.startswith("uploads"):
            self.parts.clear()
            upload = "<UploadId>1</UploadId>"
            self.answer(
                200,
                f"<InitiateMultipartUploadResult>{upload}</InitiateMultipartUploadResult>".encode(),
            )
        else:
            data = b"".join(self.parts[number] for number in sorted(self.parts))
            self.store(data)
            result = f"<ETag>{escape(tag(data))}</ETag>"
            self.answer(
                200,
                f"<CompleteMultipartUploadResult>{result}</CompleteMultipartUploadResult>".encode(),
            )


def tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'  # noqa: S324 - what S3 does


@contextmanager
def serve_bucket(host: str = "127.0.0.1") -> Iterator[ThreadingHTTPServer]:
    """Serve an empty bucket called ``bucket``.

    ``server.objects`` is what it holds, ``server.reads`` the paths that were read so far,
    ``server.requests`` all of them with their methods. What ``server.trouble`` names happens to
    each request: a status, a code and a message, or ``never``, ``cut``, ``reset``, ``login_page``.
    """
    server = ThreadingHTTPServer((host, 0), Bucket)
    server.daemon_threads = True
    server.requests, server.trouble, server.page_size = [], None, 1000
    server.clock = time.time
    server.objects, server.times, server.parts = {}, {}, {}
    server.lock, server.answers_to_lose, server.reads = threading.Lock(), [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
