"""Where a server takes gRPC calls."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from inference_client.errors import UnusableInput

PLAIN_PORT = 9000
TLS_PORT = 443


@dataclass(frozen=True)
class GrpcEndpoint:
    """The address of a gRPC door, to be dialled with TLS or in plain text."""

    host: str
    port: int
    uses_tls: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """`host:port` or `https://host[:port]` with TLS, `http://host[:port]` without. Raises `UnusableInput`."""
        fault = f"{text!r} is not a gRPC door; write it like grpc.inference.example.org:443, or http://host:9000"
        try:
            parts = urlsplit(text if "://" in text else f"https://{text}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UnusableInput(fault) from error
        if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or "@" in parts.netloc:
            raise UnusableInput(fault)
        uses_tls = parts.scheme == "https"
        return cls(host, port or (TLS_PORT if uses_tls else PLAIN_PORT), uses_tls)

    @classmethod
    def beside(cls, server: str) -> Self:
        """The default for a server's URL. Raises `UnusableInput`.

        With TLS it is the same port under the name `grpc.<host>`, or the same address. Without TLS a proxy cannot tell
        names apart, so it is a port of its own.
        """
        try:
            parts = urlsplit(server)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UnusableInput(f"{server!r} is not a server's URL: {error}") from error
        if not host:
            raise UnusableInput(f"{server!r} is not a server's URL; write it like https://inference.example.org")
        if parts.scheme != "https":
            return cls(host, PLAIN_PORT, uses_tls=False)
        return cls(host if _is_address(host) else f"grpc.{host}", port or TLS_PORT, uses_tls=True)

    @property
    def target(self) -> str:
        """The address in the form that gRPC dials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
