"""Reads a caller's metadata, once per call and in one pass."""

import uuid
from collections.abc import Iterable

from contract.access import read_key

REQUEST_ID = "request_id"
_MAX_REQUEST_ID = 1024
"""A longer one would crowd out the trailers that it travels in."""
RESERVED_PREFIX = "x-is-"
"""Metadata that only the platform sets; a caller's own is dropped."""

# Keys are for the gateway, not for containers; the rest describes the connection to the gateway, not the call.
_DROPPED = frozenset(
    {
        "x-api-key",
        "authorization",
        "x-caller-key",
        "x-door-policy",
        "user-agent",
        "host",
        "te",
        "content-type",
        "content-length",
        "accept-encoding",
        "connection",
        REQUEST_ID,
    }
)
_DROPPED_PREFIXES = (RESERVED_PREFIX, "grpc-", ":")


class Headers:
    """The metadata of one call. Of several entries with one name the first counts."""

    __slots__ = ("_all", "application", "forward", "key", "multiplexed_model_id", "request_id", "session_id")

    def __init__(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        everything: dict[str, str | bytes] = {}
        forward: list[tuple[str, str | bytes]] = []
        for name, value in metadata:
            if name not in everything:
                everything[name] = value
            if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES):
                forward.append((name, value))
        self._all = everything
        given = self.get(REQUEST_ID)
        self.request_id = given if 0 < len(given) <= _MAX_REQUEST_ID else str(uuid.uuid4())
        """The caller's, or one that was made here."""
        forward.append((REQUEST_ID, self.request_id))
        self.forward = forward
        """What the replica gets: no keys and no reserved names, but the request id."""
        self.application = self.get("application")
        self.multiplexed_model_id = self.get("multiplexed_model_id")
        self.session_id = self.get("session_id")
        self.key = read_key(everything)
        """The key as it came, or None."""

    def get(self, name: str) -> str:
        """The text of one entry; empty if there is none."""
        value = self._all.get(name, "")
        return value if isinstance(value, str) else ""
