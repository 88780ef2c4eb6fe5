"""Addresses of chat services: what is typed, what is asked, and which service it is."""

import urllib.request
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

_CHAT = "/chat/completions"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ServiceAddress:
    """An address as people type it, taken apart.

    Attributes:
        url: What the path of a request is added to.
        query: Parameters of every request, such as Azure's `api-version`.
        identity: The same text for all addresses of one service: what was paid at one of them
            is not paid again at another.
    """

    url: str
    query: dict[str, str]
    identity: str

    @classmethod
    def of(cls, text: str) -> "ServiceAddress":
        """Take an address apart.

        Args:
            text: `base_url`, with or without a slash at the end, ``/v1``, the path of the chat
                endpoint or a query.
        """
        parts = urlsplit(text)
        path = parts.path.rstrip("/").removesuffix(_CHAT).rstrip("/")
        url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        same = urlunsplit((parts.scheme.lower(), _host(parts), path or "/v1", "", ""))
        return cls(url, dict(parse_qsl(parts.query)), same)

    @property
    def is_azure(self) -> bool:
        """Whether Azure answers there, which wants the key in a header of its own."""
        host = urlsplit(self.url).hostname or ""
        return "api-version" in self.query or host.endswith((".azure.com", ".azure-api.net"))


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    return host if port in {None, _PORTS.get(parts.scheme.lower())} else f"{host}:{port}"


def advised_address(text: str) -> str:
    """Say which address was probably meant by one at which nothing is."""
    address = ServiceAddress.of(text)
    if address.is_azure:
        root = urlunsplit((*urlsplit(address.url)[:2], "", "", ""))
        return (
            f"look at base_url {text}, expected {root}/openai/deployments/<name>?api-version=<date>"
            f" or {root}/openai/v1"
        )
    if not address.url.endswith("/v1"):
        return (
            f"look at base_url: most services answer at an address that ends in /v1, here "
            f"{address.url}/v1"
        )
    return f"look at base_url {text}: nothing answers at {address.url}{_CHAT}"


def proxy_words(text: str) -> str:
    """Name the proxy of the environment that a request takes; empty without one."""
    parts = urlsplit(text)
    if urllib.request.proxy_bypass(parts.netloc):
        return ""
    proxies = urllib.request.getproxies()
    for scheme in (parts.scheme, "all"):
        if proxies.get(scheme):
            proxy = urlsplit(proxies[scheme])
            place = f"{proxy.hostname}:{proxy.port}" if proxy.port else proxy.hostname
            return (
                f"through the proxy {place or proxies[scheme]} that {scheme.upper()}_PROXY names; "
                "NO_PROXY lists the hosts that are asked directly"
            )
    return ""
