"""Who the caller is, and the keys that it may see, as the server tells it."""

from datetime import datetime

from inference_client.answers import Answer
from inference_client.statuses import KeyState, Scope


class KeyView(Answer):
    """A key without its secret."""

    id: str
    """The public part of the key: `is_<id>_<secret>`."""
    owner: str
    scopes: list[Scope]
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    """None: it is valid until it is revoked."""
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""


class CreatedKey(KeyView):
    """A new key with its secret, which no other answer shows."""

    key: str


class MeView(Answer):
    """Who the caller is, and what the server asks of callers."""

    owner: str | None
    """None without a key."""
    key_id: str | None
    scopes: list[Scope]
    """What the caller may do, beside its own tasks; `admin` includes all but `consume`."""
    expires_at: datetime | None
    requires_key: bool
    anonymous_scopes: list[Scope]
    """What a caller without a key may do."""
