"""A hub on this machine that speaks as much of Hugging Face's protocol as a push uses."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKEN = "hf_a_token_of_the_tests"  # noqa: S105


class Repository:
    """Files of a repository, by path; those sent as large objects are there when committed."""

    def __init__(self, *, private: bool) -> None:
        self.files: dict[str, bytes] = {}
        self.large: set[str] = set()
        self.commits = 0
        self.private = private

    @property
    def sha(self) -> str:
        return f"{self.commits + 1:040x}"


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory. ``server.trouble`` maps a part of a path to the status it gets."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: object = None, *, error: str = "", code: str = "") -> None:
        data = json.dumps({"error": error} if error else body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        if error:
            self.send_header("X-Error-Message", error)
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlparse(self.path).path)
        self.server.requests.append((self.command, path))
        for part, status in self.server.trouble.items():
            if part in path:
                self.answer(status, error="the hub is not well")
                return
        sent = self.headers.get("Authorization")
        if sent not in (None, f"Bearer {TOKEN}") and not path.startswith("/lfs/"):
            self.answer(401, error="Invalid credentials in Authorization header")
            return
        self.server.before(self.command, path)
        if path.startswith("/lfs/"):
            self.receive(path.removeprefix("/lfs/"), body)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        else:
            self.about_repository(path, body)

    def do_GET(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def create(self, wanted: dict) -> None:
        name = "/".join(filter(None, (wanted["organization"], wanted["name"])))
        if self.headers.get("Authorization") is None or not name.startswith("me/"):
            self.answer(403, error="You don't have the rights to create a dataset there")
            return
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.server.repositories.setdefault(name, Repository(private=private))
        self.answer(200, {"url": f"{self.server.url}/datasets/{name}", "id": name})

    def receive(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self.answer(400, error="other bytes than announced")
            return
        self.server.objects[oid] = body
        self.answer(200, {})

    def about_repository(self, path: str, body: bytes) -> None:
        match = re.fullmatch(r"/(?:api/)?datasets/(\w+/[\w-]+?)(\.git)?(?:/(.*))?", path)
        repository = self.server.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            self.answer(404, error="Repository not found", code="RepoNotFound")
            return
        what = (match[3] or "").split("/")[0]
        getattr(self, f"answer_{what or 'about'}")(match[1], repository, body)

    def answer_about(self, name: str, repository: Repository, _: bytes) -> None:
        about = {"id": name, "sha": repository.sha, "private": repository.private}
        named = re.search(rb"(?m)^license: (.*)$", repository.files.get("README.md", b""))
        if named:
            about["cardData"] = {"license": named[1].decode()}
        self.answer(200, about)

    answer_revision = answer_about

    def answer_tree(self, _: str, repository: Repository, __: bytes) -> None:
        entries = []
        for path, data in sorted(repository.files.items()):
            entry = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
            if path in repository.large:
                oid = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self.answer(200, entries)

    def answer_preupload(self, _: str, repository: Repository, body: bytes) -> None:
        files = []
        for each in json.loads(body)["files"]:
            path, known = each["path"], None
            is_large = path.endswith(".parquet") and not self.server.all_regular
            if path in repository.files:
                data = repository.files[path]
                known = hashlib.sha256(data).hexdigest() if is_large else git_hash(data)
            mode = "lfs" if is_large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        self.answer(200, {"files": files})

    def answer_info(self, _: str, __: Repository, body: bytes) -> None:
        """What of the announced objects is to be sent, and where to."""
        objects = []
        for each in json.loads(body)["objects"]:
            entry = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.server.objects:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}
            objects.append(entry)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def answer_commit(self, name: str, repository: Repository, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        with self.server.lock:
            parent = lines[0]["value"].get("parentCommit")
            if parent not in (None, repository.sha):
                self.answer(412, error="A commit has happened since. Please refresh and try again.")
                return
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repository.files[value["path"]] = self.server.objects[value["oid"]]
                    repository.large.add(value["path"])
                else:
                    del repository.files[value["path"]]
            repository.commits += 1
        url = f"{self.server.url}/datasets/{name}/commit/{repository.sha}"
        self.answer(200, {"commitUrl": url, "commitOid": repository.sha, "pullRequestUrl": None})


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's own


@contextmanager
def serve_hub() -> Iterator[ThreadingHTTPServer]:
    """Serve an empty hub where ``me`` may write with `TOKEN`.

    ``server.repositories`` is what it holds, ``server.objects`` what was sent, ``server.requests``
    all that was asked; ``server.before`` is called with method and path of each request.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.repositories, server.objects, server.requests = {}, {}, []
    server.trouble, server.lock = {}, threading.Lock()
    server.all_regular, server.before = False, lambda command, path: None
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
