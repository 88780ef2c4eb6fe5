"""Where pages are served that have a server of their own."""

import ipaddress
import socket
from dataclasses import dataclass

from storage.errors import InputError

_LINE = 16
"""Connections that wait until they are taken."""


@dataclass(frozen=True)
class PageAddress:
    """Where the page is served.

    Attributes:
        host: Interface: a name, or a number of IPv4 or IPv6.
        port: Its port; 0 takes a free one.
    """

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def names(self) -> frozenset[str]:
        """Host names that a browser may call it by; empty for any."""
        if not self.is_loopback:
            return frozenset()
        return frozenset({self.host, "localhost", "127.0.0.1", "::1"})

    def listen(self) -> socket.socket:
        """Take the port.

        Raises:
            InputError: If it is taken, or the host is none of this machine's.
        """
        try:
            family, kind, _, _, place = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            found = socket.socket(family, kind)
        except OSError as error:
            message = (
                f"{self.host!r} is no interface of this machine ({error.strerror or error}): give "
                "another --host"
            )
            raise InputError(message) from error
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(place)
            found.listen(_LINE)
        except OSError as error:
            found.close()
            message = (
                f"port {self.port} of {self.host} cannot be taken ({error.strerror}): give another "
                "--port, or 0 for a free one"
            )
            raise InputError(message) from error
        return found
