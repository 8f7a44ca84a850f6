"""What a caller's metadata says: read once per call, in one pass."""

import uuid
from collections.abc import Iterable

REQUEST_ID = "request_id"
_MAX_REQUEST_ID = 1024
"""A longer one would crowd out the trailers it travels in."""
RESERVED_PREFIX = "x-is-"
"""Metadata that only the platform sets; a caller's own is dropped."""

# Keys are for the gateway, not for containers; the others describe the connection to the gateway, not the call.
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
    """The metadata of one call. Where a key stands several times the first counts."""

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
        """The caller's, or one made here."""
        forward.append((REQUEST_ID, self.request_id))
        self.forward = forward
        """What the replica is told: without keys and reserved names, with the request id."""
        self.application = self.get("application")
        self.multiplexed_model_id = self.get("multiplexed_model_id")
        self.session_id = self.get("session_id")
        self.key = self._given_key()
        """The key as it came, or None: what is wrong with it the private API says."""

    def get(self, name: str) -> str:
        """The text of one entry; empty where there is none."""
        value = self._all.get(name, "")
        return value if isinstance(value, str) else ""

    def _given_key(self) -> str | None:
        key = self._all.get("x-api-key")
        if isinstance(key, str):
            return key
        if "authorization" in self._all:
            scheme, _, key = self.get("authorization").partition(" ")
            # Other schemes are between the client and whatever stands in front of this server.
            return key.strip() if scheme.lower() == "bearer" else None
        return None
