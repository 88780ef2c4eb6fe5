"""Connections to object stores: which URL and which settings of the environment make one."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any
from urllib.parse import SplitResult, urlsplit

from obstore.exceptions import BaseError
from obstore.store import MemoryStore, from_url

from storage.errors import InputError
from storage.redaction import redacted

PATIENCE_VARIABLE = "MAGICSEG_STORE_PATIENCE_SECONDS"
"""How long a request is repeated; an answer that stops for a third of it is given up."""
_PATIENCE = 90.0
_LONGEST_PATIENCE = 3600.0
_LONGEST_REQUEST = timedelta(minutes=15)
_LONGEST_CONNECT = timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=200), timedelta(seconds=10)
_MOST_RETRIES = 12

_TRUE, _FALSE = {"1", "true", "on", "yes", "y"}, {"", "0", "false", "off", "no", "n"}
_CONTROL = re.compile(r"[\x00-\x20\x7f-\uffff]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Provider:
    """A kind of object store.

    Attributes:
        name: What people call it.
        bucket: What people call its buckets.
        address: The variable that names its server, as people know it.
        endpoints: All variables that do, the first one that is set counts.
        allow_http: Variable that allows plain http; None where it needs none.
        credentials: Variables that hold the credentials, in words.
        words: Variables that hold one word each: no space, no line break.
    """

    name: str
    bucket: str
    address: str
    endpoints: tuple[str, ...]
    allow_http: str | None
    credentials: str
    words: tuple[str, ...]


_S3 = Provider(
    "S3",
    "bucket",
    "AWS_ENDPOINT_URL",
    ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "AWS_ALLOW_HTTP",
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones)",
    (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ),
)
_GOOGLE = Provider(
    "Google Cloud Storage",
    "bucket",
    "GOOGLE_BASE_URL",
    ("GOOGLE_BASE_URL",),
    None,
    "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT (a file)",
    ("GOOGLE_BEARER_TOKEN",),
)
_AZURE = Provider(
    "Azure",
    "container",
    "AZURE_STORAGE_ENDPOINT",
    ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "AZURE_ALLOW_HTTP",
    "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_TOKEN",
    ),
)
_MEMORY = Provider("memory", "store", "", (), None, "nothing", ())
_PROVIDERS = {
    **dict.fromkeys(("s3", "s3a"), _S3),
    "gs": _GOOGLE,
    **dict.fromkeys(("az", "azure", "abfs", "abfss", "adl"), _AZURE),
}


@dataclass(frozen=True)
class Connection:
    """A bucket, reached with the credentials and settings of the environment; see `connect`.

    Attributes:
        url: What messages and readers call it.
        provider: Whose it is.
        endpoint: The server's address; empty for the provider's own.
        patience: Seconds for which a request is repeated.
        opened: Gives an obstore store, by the number of repetitions and whether an answer that
            stalls is given up.
    """

    url: str
    provider: Provider
    endpoint: str
    patience: float
    opened: Callable[[int, bool], Any]

    @cached_property
    def store(self) -> Any:
        """The store for requests that change nothing if they are sent twice: it repeats them."""
        return self.opened(_MOST_RETRIES, True)

    @cached_property
    def single(self) -> Any:
        """The store without repetitions, for requests that must not be sent twice unnoticed."""
        return self.opened(0, True)

    @cached_property
    def upload(self) -> Any:
        """Like `single`, for bytes that take long to send: nothing is heard meanwhile."""
        return self.opened(0, False)


def connect(url: str) -> Connection:
    """Connect to a bucket; no request is sent yet.

    Args:
        url: ``s3://bucket/prefix``, ``gs://...`` or ``az://...``.

    Raises:
        InputError: The URL is of an unknown kind, misses a part or holds a credential, or a
            variable of the environment cannot be used. No message repeats a credential.
    """
    provider = _checked(url)
    _check_words(provider, os.environ)
    url = url.rstrip("/")
    patience = read_patience(os.environ)
    endpoint = _endpoint(provider, os.environ)
    allow_http = provider.allow_http is None or _is_true(provider.allow_http)

    def opened(retries: int, stalls: bool) -> Any:
        stall = timedelta(seconds=patience / 3)
        client: dict[str, Any] = {
            "allow_http": allow_http,
            "connect_timeout": min(_LONGEST_CONNECT, stall),
            "timeout": _LONGEST_REQUEST,
        }
        if stalls:
            client["read_timeout"] = stall
        pauses = {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2}
        retry: dict[str, Any] = {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=patience),
            "backoff": pauses,
        }
        options: Any = {"client_options": client, "retry_config": retry}
        try:
            return from_url(url, **options)
        except (BaseError, ValueError) as error:
            why = redacted(str(error).partition("\n")[0])
            message = (
                f"cannot open {url!r} ({why}); use a path, or s3://, gs:// or az://, with "
                f"{provider.credentials} in the environment"
            )
            raise InputError(message) from None

    connection = Connection(url, provider, endpoint, patience, opened)
    _ = connection.store  # what is wrong with the settings is told now
    return connection


def connect_memory(url: str, store: MemoryStore) -> Connection:
    """Connect to a store in this process's memory."""
    return Connection(url, _MEMORY, "", _PATIENCE, lambda retries, stalls: store)


def read_patience(environment: Mapping[str, str]) -> float:
    """How many seconds a request is repeated.

    Raises:
        InputError: The variable holds no number of seconds that can be used.
    """
    text = environment.get(PATIENCE_VARIABLE, "")
    if not text:
        return _PATIENCE
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= _LONGEST_PATIENCE:
        message = (
            f"{PATIENCE_VARIABLE} is {text[:40]!r}; expected seconds between 0.1 and "
            f"{_LONGEST_PATIENCE:.0f}, or nothing for {_PATIENCE:.0f}"
        )
        raise InputError(message)
    return seconds


def _checked(url: str) -> Provider:
    shown = redacted(url)
    try:
        parts = urlsplit(url)
        provider = _PROVIDERS.get(parts.scheme.lower())
    except ValueError:
        parts, provider = None, None
    if parts is None or provider is None:
        message = (
            f"cannot open {shown!r}: use a path, or s3://, gs:// or az:// (a server of your own is "
            "named by AWS_ENDPOINT_URL)"
        )
        raise InputError(message)
    secret = _secret_part(parts, provider)
    if secret:
        message = (
            f"{shown!r} has {secret}, which would get into records and logs; give credentials in "
            f"the environment alone: {provider.credentials}"
        )
        raise InputError(message)
    fault = _fault(url, parts)
    if fault:
        message = f"cannot open {shown!r} ({fault}); use a path, or s3://, gs:// or az://"
        raise InputError(message)
    return provider


def _secret_part(parts: SplitResult, provider: Provider) -> str:
    # abfs://container@account.dfs.core.windows.net names a container there
    names_container = provider is _AZURE and parts.scheme.lower() in {"abfs", "abfss"}
    if ":" in parts.netloc.rpartition("@")[0] or ("@" in parts.netloc and not names_container):
        return "a user or a password before '@'"
    if parts.query or parts.fragment:
        return "a part after '?' or '#'"
    return ""


def _fault(url: str, parts: SplitResult) -> str:
    bucket = parts.netloc.rpartition("@")[2]
    if not bucket:
        return "it names no bucket"
    if not _BUCKET.fullmatch(bucket):
        return f"{bucket[:80]!r} is no name of a bucket"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in url) or "\\" in url:
        return "it has a control character or a backslash"
    path = parts.path.rstrip("/")[1:]
    odd = {"", ".", ".."} & set(path.split("/")) if path else set[str]()
    return f"its path has a part {min(odd)!r}" if odd else ""


def _check_words(provider: Provider, environment: Mapping[str, str]) -> None:
    """Refuse what no request can carry; its value is not repeated."""
    for name in (*provider.words, *provider.endpoints):
        if environment.get(name) == "":
            message = f"{name} is set, but empty: give it a value or unset it"
            raise InputError(message)
    for name in provider.words:
        if _CONTROL.search(environment.get(name, "")):
            message = (
                f"{name} has a space, a line break or a letter beyond ASCII in it: set it again "
                "without"
            )
            raise InputError(message)


def _endpoint(provider: Provider, environment: Mapping[str, str]) -> str:
    """The server's address, checked; empty for the provider's own."""
    name = next((each for each in provider.endpoints if environment.get(each)), None)
    if name is None:
        return ""
    text = environment[name]
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = None, False
    if parts is None or not usable or _CONTROL.search(text):
        message = f"{name} is {redacted(text)!r}; expected an address like https://host:9000"
        raise InputError(message)
    if "@" in parts.netloc or parts.query or parts.fragment:
        message = (
            f"{name} holds a user, a password or a part after '?' ({redacted(text)}); expected an "
            f"address like https://host:9000, and credentials in {provider.credentials}"
        )
        raise InputError(message)
    allow = provider.allow_http
    if parts.scheme == "http" and allow is not None and not _is_true(allow):
        message = (
            f"{name} is {text}, which is not encrypted: give an https address, or set "
            f"{allow}=true for a server in a network of your own"
        )
        raise InputError(message)
    return text.rstrip("/")


def _is_true(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text not in _TRUE | _FALSE:
        message = f"{name} is {text[:40]!r}; expected true or false"
        raise InputError(message)
    return text in _TRUE
