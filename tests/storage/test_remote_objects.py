import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from storage.errors import EngineError, InputError, TransientError
from storage.objects import open_objects
from troubled_line import serve_troubled_line

VERBS = {
    "read": lambda objects: objects.read("a/x"),
    "read_range": lambda objects: objects.read_range("a/x", 0, 5),
    "size": lambda objects: objects.size("a/x"),
    "paths": lambda objects: objects.paths("a"),
    "write_new": lambda objects: objects.write_new("a/x", b"it"),
    "write_version": lambda objects: objects.write_version("a/x", b"it", {"e_tag": '"0"'}),
    "replace": lambda objects: objects.replace("a/x", b"it"),
    "move": lambda objects: objects.move("a/x", "a/y"),
    "delete": lambda objects: objects.delete("a/x"),
}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MAGICSEG_STORE_PATIENCE_SECONDS", "0.5")


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_bucket_is_an_error_of_every_request(bucket, verb):
    with pytest.raises(InputError, match=r"s3://nowhere/x/a.*there is no such bucket; make it"):
        VERBS[verb](open_objects("s3://nowhere/x"))
    assert Counter(bucket.requests).most_common(1)[0][1] <= 2  # and is told at once


def test_a_missing_object_is_no_missing_bucket(bucket):
    objects = open_objects(bucket.root)
    assert objects.size("a/x") is None
    assert not objects.move("a/x", "a/y")
    assert objects.write_version("a/x", b"it", {"e_tag": '"0"'}) is None
    objects.delete("a/x")
    with pytest.raises(FileNotFoundError, match=f"there is no {bucket.root}/a/x"):
        objects.read("a/x")


REFUSALS = {
    "key": (403, "InvalidAccessKeyId", "credentials are not accepted; check AWS_ACCESS_KEY_ID"),
    "secret": (403, "SignatureDoesNotMatch", "credentials are not accepted; check AWS_ACCESS_KEY"),
    "rights": (403, "AccessDenied", "do not give the right to .* there; the rights to list"),
    "old": (400, "ExpiredToken", "credentials have expired; renew .*run the same command again"),
    "clock": (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
    "region": (400, "AuthorizationHeaderMalformed", "another region.*set AWS_REGION"),
    "redirect": (301, "PermanentRedirect", "another region.*set AWS_REGION"),
    "method": (405, "MethodNotAllowed", "the server does not know this request"),
    "other": (400, "EntityTooLarge", "does not accept the request"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_said_in_one_line_with_the_way_out(bucket, impatient, refusal):
    status, code, words = REFUSALS[refusal]
    bucket.trouble = (status, code, "the region 'a' is wrong; expecting 'eu-west-1'")
    objects = open_objects(bucket.root)
    for verb in VERBS.values():
        with pytest.raises(InputError, match=words) as caught:
            verb(objects)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 500
        assert bucket.root in message
        assert caught.value.__suppress_context__  # what obstore says may hold signatures
        if refusal == "region":
            assert ", eu-west-1; set" in message


def test_the_page_names_the_messages_that_are_said(bucket, impatient, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "object_stores.md").read_text()
    table = page.partition("| message | way out |\n|---|---|\n")[2].partition("\n\n")[0]
    phrases = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()]
    messages: list[str] = []

    def say() -> None:
        with pytest.raises(EngineError) as caught:
            open_objects(bucket.root).read("x")
        messages.append(str(caught.value))

    for status, code, _ in REFUSALS.values():
        bucket.trouble = (status, code)
        say()
    bucket.trouble = (404, "NoSuchBucket")
    say()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{bucket.server_port}")
    say()
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.server_port}")
    say()
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    say()
    phrases.remove("the server's certificate is not trusted")  # has a test of its own
    assert len(phrases) > 8
    for phrase in phrases:
        parts = [part.strip(" ,") for part in phrase.split("...")]
        assert any(all(part in message for part in parts) for message in messages), phrase


TROUBLES = {
    "500": ((500, "InternalError"), "overloaded or out of order"),
    "503": ((503, "SlowDown"), "overloaded or out of order"),
    "never": ("never", "no answer came in time; .*MAGICSEG_STORE_PATIENCE_SECONDS"),
    "reset": ("reset", "cut off; check the network and run the same command again"),
}


@pytest.mark.parametrize("verb", ["read", "paths", "write_new", "delete"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_server_in_trouble_is_asked_again_for_a_while(bucket, impatient, trouble, verb):
    bucket.trouble, words = TROUBLES[trouble]
    start = time.monotonic()
    with pytest.raises(TransientError, match=words):
        VERBS[verb](open_objects(bucket.root))
    assert time.monotonic() - start < 60  # and not for ever
    assert len(bucket.requests) > 1


@pytest.mark.parametrize("verb", ["read", "paths"])
def test_an_answer_that_is_cut_off_is_no_answer(bucket, impatient, verb):
    bucket.trouble = "cut"
    with pytest.raises(TransientError, match="run the same command again"):
        VERBS[verb](open_objects(bucket.root))


@pytest.mark.parametrize("verb", ["read", "write_new", "replace", "move", "delete"])
def test_a_server_that_is_no_object_store_is_told(bucket, impatient, verb):
    bucket.trouble = "login_page"
    with pytest.raises(EngineError, match=r"not answer as an object store.*http://127.0.0.1"):
        VERBS[verb](open_objects(bucket.root))


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:{closed}", "cannot be reached; check the address http://127.0.0.1:"),
        ("https://127.0.0.1:{open}", "does not speak https"),
        ("http://no.such.host.invalid", "name of the server is not known"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_with_its_address(
    bucket, impatient, monkeypatch, endpoint, words
):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        closed = free.getsockname()[1]
    ports = {"closed": closed, "open": bucket.server_port}
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.format(**ports))
    for verb in ("read", "paths", "write_new"):
        with pytest.raises(EngineError, match=words):
            VERBS[verb](open_objects(bucket.root))


READ = """
import sys
from storage.errors import InputError
from storage.objects import open_objects
try:
    print(open_objects(sys.argv[1]).size("x"))
except InputError as error:
    print(error)
"""


def test_an_unknown_certificate_is_told_and_can_be_made_known(tmp_path, bucket, in_process):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    made, certificate = tmp_path / "made.pem", tmp_path / "cert.pem"
    command = f"req -x509 -newkey rsa:2048 -nodes -subj /CN=test -days 2 -keyout {made}"
    known = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run(
        [openssl, *command.split(), *known, "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, made)
    bucket.socket = context.wrap_socket(bucket.socket, server_side=True)
    bucket.handle_error = lambda *address: None  # the client hangs up
    settings = {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{bucket.server_port}"}
    settings["MAGICSEG_STORE_PATIENCE_SECONDS"] = "5"
    stranger = in_process(READ, bucket.root, **settings)
    friend = in_process(READ, bucket.root, **settings, SSL_CERT_FILE=str(certificate))
    assert "certificate is not trusted" in (said := stranger.communicate(timeout=60)[0]), said
    assert "SSL_CERT_FILE" in said
    assert friend.communicate(timeout=60)[0] == "None\n"


def test_a_burst_of_errors_is_outlived(bucket, monkeypatch):
    monkeypatch.setenv("MAGICSEG_STORE_PATIENCE_SECONDS", "20")
    objects = open_objects(bucket.root)
    bucket.trouble = (503, "SlowDown")
    threading.Timer(0.5, lambda: setattr(bucket, "trouble", None)).start()
    assert objects.write_new("x", b"it")
    assert objects.read("x") == b"it"


def test_a_bad_line_loses_nothing_and_does_nothing_twice(bucket, monkeypatch):
    with serve_troubled_line(bucket.server_port, lost=0.1) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.server_port}")
        objects = open_objects(bucket.root)
        version = None
        for number in range(12):
            data = str(number).encode() * 1000
            # an answer that was lost is not taken for somebody else's object
            assert objects.write_new(f"a/{number:02}", data)
            assert not objects.write_new(f"a/{number:02}", b"other")
            version = objects.write_version("lease", data, version)
            assert version is not None
        for _ in range(12):
            assert objects.paths("a") == [f"a/{number:02}" for number in range(12)]
        assert [data[:1] for _, data in objects.read_many(objects.paths("a")[:10])] == [
            str(number).encode() for number in range(10)
        ]
    assert line.fates["refused"] > 5
    assert line.fates["lost"] > 2


def test_many_objects_are_listed_page_by_page(bucket):
    objects = open_objects(bucket.root)
    bucket.page_size = 10
    for number in range(35):
        bucket.objects[f"some/prefix/a/{number:03}"] = b""
        bucket.times[f"some/prefix/a/{number:03}"] = 0.0
    assert objects.paths("a") == [f"a/{number:03}" for number in range(35)]
    assert sum("list-type=2" in path for path in bucket.reads) == 4


def test_folders_that_other_tools_have_made_are_no_objects(bucket):
    for name in ("", "data/", "data/sub/", "data/sub/x", "data/empty"):
        bucket.objects[f"some/prefix/{name}"] = b"it" if name.endswith("x") else b""
    objects = open_objects(bucket.root)
    assert objects.paths("data") == ["data/empty", "data/sub/x"]
    assert objects.paths("") == ["data/empty", "data/sub/x"]


def test_a_name_that_cannot_be_used_is_told_and_not_left_out(bucket):
    bucket.objects["some/prefix/data/a//b"] = b""
    with pytest.raises(InputError, match=r"name that cannot be used .*rename or remove it"):
        open_objects(bucket.root).paths("data")


def test_a_range_behind_the_end_is_empty(root):
    objects = open_objects(root)
    objects.write_new("x", b"0123")
    assert objects.read_range("x", 2, 100) == b"23"
    assert objects.read_range("x", 50, 10) == b""
    assert objects.read_range("x", 0, 0) == b""


SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAVERYSECRETNAME",
    "AWS_SECRET_ACCESS_KEY": "wJalrVerySecretWord",
    "AWS_SESSION_TOKEN": "FwoGVerySecretToken",
}


@pytest.mark.parametrize("verb", ["read", "size", "paths", "write_new", "delete"])
def test_no_message_and_no_log_holds_a_credential(bucket, impatient, monkeypatch, caplog, verb):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    said = " ".join(SECRETS.values())  # servers repeat what they were sent
    caplog.set_level(0)
    for status, code in [(403, "AccessDenied"), (400, "Strange"), (500, "InternalError")]:
        bucket.trouble = (status, code, said)
        with pytest.raises(EngineError) as caught:
            VERBS[verb](open_objects(bucket.root))
        error: BaseException | None = caught.value
        while error is not None:  # as a traceback shows it
            assert not any(secret in str(error) for secret in SECRETS.values())
            error = None if error.__suppress_context__ else error.__context__
    assert not any(secret in caplog.text for secret in SECRETS.values())
    assert not any(
        secret.encode() in data for data in bucket.objects.values() for secret in SECRETS.values()
    )


@pytest.fixture
def moto(monkeypatch):
    """A bucket of the moto server, whose answers are those of S3."""
    program = shutil.which("moto_server")
    if program is None:
        pytest.skip("no moto_server on this machine")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([program, "-p", str(port)], stdout=quiet, stderr=quiet)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                make = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
                urllib.request.urlopen(make).close()
                break
            assert server.poll() is None, "moto_server did not start"
            assert time.monotonic() < end, "moto_server does not answer"
            time.sleep(0.1)
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-central-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield "s3://bucket/some/prefix"
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_a_server_of_s3_is_reached_by_endpoint_and_region(moto):
    objects = open_objects(moto)
    assert objects.write_new("a/x", b"it")
    assert not objects.write_new("a/x", b"other")
    assert objects.read_range("a/x", 50, 5) == b""
    assert objects.move("a/x", "b/x")
    assert objects.paths("") == ["b/x"]
    assert [*objects.read_many(["b/x", "b/y"])] == [("b/x", b"it"), ("b/y", None)]
    objects.delete("b/x")
    assert objects.size("b/x") is None
    for verb in VERBS.values():
        with pytest.raises(InputError, match="there is no such bucket"):
            verb(open_objects("s3://nowhere/x"))
