"""Keys over HTTP: who the caller is, and the keys that it may see, make and revoke. Their secrets are never listed."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from contract.access import Scope
from contract.quotas import HIGHEST_LIMIT, Quota, QuotaUnit
from contract.schemas import ListQuery, Message, OwnerName, Query

KEY_ID_PATTERN = r"^[0-9a-f]{16}$"
MAX_LIFETIME_S = 36500 * 24 * 3600
"""A hundred years."""
KeyQuotas = dict[Quota, Annotated[int, Field(ge=1, le=HIGHEST_LIMIT)] | None]
"""The limits that a key has of its own; null: no limit."""


class KeyState(StrEnum):
    """Whether a key opens anything."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeyView(Message):
    """A key without its secret."""

    id: str = Field(description="The public part of the key: `is_<id>_<secret>`.")
    owner: str
    scopes: list[Scope] = Field(description="What it allows, beside its owner's own tasks.")
    state: KeyState
    created_at: datetime
    expires_at: datetime | None = Field(description="Null: it is valid until it is revoked.")
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute; null if it never was.")
    quotas: KeyQuotas = Field(
        default={}, description="Limits of its own, null for no limit; of every other quota the server's."
    )


class CreatedKey(KeyView):
    """A new key, with its secret: this answer is the only one that ever shows it."""

    key: str


class KeyCreation(Message):
    """The body of `POST /api/keys/`."""

    # A mistyped member must not make a key that lives longer or allows more than was meant.
    model_config = ConfigDict(extra="forbid", frozen=True)

    scopes: Annotated[
        list[Scope],
        Field(min_length=1, max_length=len(Scope), description="No more than the key that makes it has."),
    ]
    owner: Annotated[
        OwnerName | None, Field(description="Another owner needs a key with the scope `admin`; null: one's own.")
    ] = None
    lifetime_s: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_LIFETIME_S,
            description="How long it is valid; null: as long as the key that makes it. It never outlives that one's "
            "expiry.",
        ),
    ] = None
    quotas: Annotated[
        KeyQuotas,
        Field(
            description="Limits of its own, null for no limit; of every other quota it has the server's. Without the "
            "scope `admin` no higher than those of the key that makes it, which are also what is not given here.",
            default_factory=dict,
        ),
    ]


class KeyRotation(Message):
    """The body of `POST /api/keys/{key_id}/rotate`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlap_s: Annotated[
        int,
        Field(ge=0, le=30 * 24 * 3600, description="How long the old key stays valid; 0: it ends now."),
    ] = 24 * 3600


class KeyListQuery(ListQuery):
    """The query of `GET /api/keys/`."""

    owner: Annotated[
        str | None,
        Field(max_length=128, description="Only keys of this owner; others than one's own need the scope `admin`."),
    ] = None


class MeView(Message):
    """Who the caller is, and what is asked of callers here."""

    owner: str | None = Field(description="The owner of the key; null without one.")
    key_id: str | None = Field(description="The public part of the key: `is_<id>_<secret>`; null without one.")
    scopes: list[Scope] = Field(
        description="What the caller may do here, beside its own tasks. `admin` includes all but `consume`; `models` "
        "is there for every caller where everybody may register models."
    )
    expires_at: datetime | None = Field(description="When the key ends; null: it does not, or there is none.")
    requires_key: bool = Field(description="Whether every call here needs a key.")
    anonymous_scopes: list[Scope] = Field(
        description="What a caller without a key may do here; nothing where keys are required."
    )


class QuotaQuery(Query):
    """The query of `GET /api/quota`."""

    owner: Annotated[
        OwnerName | None, Field(description="Whose; another owner's needs a key with the scope `operate`.")
    ] = None


class QuotaView(Message):
    """One quota of an owner."""

    quota: Quota
    unit: QuotaUnit
    limit: int | None = Field(description="The most that there may be; null: no limit.")
    used: int


class OwnerQuotas(Message):
    """What an owner may have of the server, and what it has."""

    owner: str | None = Field(description="Null without a key.")
    quotas: list[QuotaView] = Field(description="Empty without a key: such callers have no quotas.")
