"""Refuses what a web page does in its visitor's name, and whoever comes by a name that is not this server's.

A browser sends a form of any page to any server, from the visitor's own machine and network (cross-site request
forgery), and asks whatever address the DNS of a page's name leads to, as if it were the page's own (DNS rebinding).
"""

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import BeforeValidator

from contract.errors import PermissionDenied

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
"""Of `Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/): this server's own pages, and what a person typed."""


def parse_hosts(text: str) -> tuple[str, ...]:
    """The names of a text that separates them by commas or spaces. Raises `ValueError` naming the one at fault."""
    return tuple(dict.fromkeys(_parse_host(each) for each in text.replace(",", " ").split()))


Hosts = Annotated[tuple[str, ...], BeforeValidator(parse_hosts)]
"""Names of hosts, as in `segment.example.org *.lab.example.org`."""


def _parse_host(text: str) -> str:
    if text == "*":
        return text
    name = text.lower().rstrip(".")
    labels = name.removeprefix("*.").split(".")
    if not all(label.replace("-", "").replace("_", "").isalnum() for label in labels):
        raise ValueError(
            f"{text!r} is not a name of a host: write it without a scheme and a port, as in segment.example.org, "
            "or *.example.org for all below it"
        )
    return name


class SiteGuard:
    """A dependency of routes: raises `PermissionDenied`."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """`hosts` are this server's names beside its machine's; pages of `origins` may do what its own may."""
        self._hosts = {*hosts, socket.gethostname().lower()}
        self._origins = frozenset(origins)

    async def __call__(self, request: Request) -> None:
        """Judge the request by its headers, before anything of its body is read."""
        host = request.headers.get("host", "")
        if not self.knows(host):
            raise PermissionDenied(
                f"this server is not called {_name_of(host)!r}. If it is, its operator adds the name to ALLOWED_HOSTS"
            )
        origin = request.headers.get("origin")
        if request.method in _SAFE_METHODS or origin in self._origins:
            return
        site = request.headers.get("sec-fetch-site", "none")
        if site not in _OWN_SITES or (origin is not None and not _is_at(origin, host)):
            raise PermissionDenied(
                f"a page of {origin or 'another site'} may not do this in its visitor's name. If it should, the "
                "server's operator adds its origin to CORS_ORIGINS"
            )

    def knows(self, host: str) -> bool:
        """Whether a request that names this host, or none, may be meant for this server."""
        return not host or self._is_ours(_name_of(host))

    def _is_ours(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts or "*" in self._hosts:
            return True
        if _is_address(name):
            # No DNS leads to a page of another server by an address.
            return True
        return any(name.endswith(host[1:]) for host in self._hosts if host.startswith("*."))


def _name_of(host: str) -> str:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host
    return name.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_at(origin: str, host: str) -> bool:
    """Whether the origin is that of a page that came from `host`. A proxy may have left out its port."""
    netloc = urlsplit(origin).netloc.lower()
    return netloc == host.lower() or netloc.rpartition(":")[0] == host.lower()
