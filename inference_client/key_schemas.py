"""Who the caller is, and the keys that it may see, as the server tells it."""

from datetime import datetime

from pydantic import Field

from inference_client.answers import Answer
from inference_client.statuses import KeyState, Quota, QuotaUnit, Scope


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
    quotas: dict[Quota, int | None] = Field(default_factory=dict)
    """Limits of its own, None for no limit; of every other quota the server's."""


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


class QuotaView(Answer):
    """One quota of an owner."""

    quota: Quota
    unit: QuotaUnit
    limit: int | None
    """None: no limit."""
    used: int


class OwnerQuotas(Answer):
    """What an owner may have of the server, and what it has."""

    owner: str | None
    """None without a key."""
    quotas: list[QuotaView]
    """Empty without a key: such callers have no quotas."""
