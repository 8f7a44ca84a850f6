"""Access: the scopes of keys, who a caller is and may do, and what a door tells the private API about both."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from string import whitespace
from typing import Self

from contract.errors import PermissionDenied
from contract.quotas import Quota


class Scope(StrEnum):
    """What a key allows, beside access to its owner's own tasks."""

    SUBMIT = "submit"
    """Have models compute: submit tasks, and call deployments over gRPC."""
    MODELS = "models"
    """Register models."""
    OPERATE = "operate"
    """See, cancel and delete everybody's tasks; it does not include `SUBMIT`."""
    KEYS = "keys"
    """List, make and revoke the keys of one's owner."""
    ADMIN = "admin"
    """All of the above, and the keys of all owners."""
    CONSUME = "consume"
    """Run tasks, and nothing else: for the consumers of one host. No other scope includes it."""


OWNER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}"
KEY_PATTERN = re.compile(r"is_([0-9a-f]{16})_([0-9a-f]{64})")
"""The form of every key: its id, which is no secret, and its secret."""
CALLER_KEY_HEADER = "x-caller-key"
"""The key that a door was given. Doors set this header; a client's own is never passed on."""
CALLER_ADDRESS_HEADER = "x-caller-address"
"""The client's IP address as a door saw it. Doors set this header, too."""
DOOR_POLICY_HEADER = "x-door-policy"


KEY_WANTED = "this server wants a key: X-API-Key: <key>, or Authorization: Bearer <key>"
NOT_A_KEY = "what was given is not a key: keys look like is_<16 hex digits>_<64 hex digits>"


def read_key(headers: Mapping[str, str | bytes]) -> str | None:
    """The key that a client sent to a door, by `x-api-key`, else as a bearer; None if it sent none.

    Header names are lower case. The key is returned as it came: the private API says what is wrong with it.
    """
    key = headers.get("x-api-key")
    if isinstance(key, str):
        return key
    authorization = headers.get("authorization")
    if not isinstance(authorization, str):
        return None
    scheme, _, key = authorization.partition(" ")
    # Other schemes are between the client and whatever stands in front of this server.
    return key.strip(whitespace) if scheme.lower() == "bearer" else None


def not_shared(model: str) -> str:
    """Why a model that is for certain owners does not compute for another one, or for who shows no key."""
    return (
        f"the model {model!r} is for certain owners, and this call shows no key of one of them; its owner may share it"
    )


def key_id_of(key: str) -> str | None:
    """The public part of a key; None for a text that is none."""
    match = KEY_PATTERN.fullmatch(key)
    return match and match[1]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as every rule of both doors sees it: made from a checked key, or for a call without one."""

    owner: str | None
    """None without a key."""
    scopes: frozenset[str]
    """Of `Scope`; a newer private API may know more."""
    key_id: str | None = field(default=None, compare=False)
    """The public part of the key; doors do without it."""
    address: str | None = field(default=None, compare=False)
    """Where the call came from, as the door saw it; only the private API knows it, for the audit trail."""
    quotas: Mapping[Quota, int | None] = field(default_factory=dict, compare=False)
    """Limits of the key's own, None for no limit; of every other quota the server's. Doors do without them."""

    def may(self, scope: Scope) -> bool:
        """Whether the caller has this scope."""
        return scope in self.scopes or (Scope.ADMIN in self.scopes and scope is not Scope.CONSUME)

    def require(self, scope: Scope, otherwise: str) -> None:
        """Raises `PermissionDenied` with the text `otherwise` unless the caller has this scope."""
        if not self.may(scope):
            raise PermissionDenied(otherwise)

    def require_user(self) -> None:
        """Raises `PermissionDenied` if this is the key of a consumer's host, which opens no door."""
        if Scope.CONSUME in self.scopes:
            raise PermissionDenied("This key has the scope consume: it is for a consumer's host, and opens no door.")

    def require_submit(self) -> None:
        """Raises `PermissionDenied` unless the caller may have a model compute, by a task or by a call."""
        self.require(Scope.SUBMIT, "This key may not submit tasks: it lacks the scope submit.")


ANONYMOUS = Caller(None, frozenset({Scope.SUBMIT}))
"""A caller without a key, where none is required."""


@dataclass(frozen=True)
class DoorPolicy:
    """What a door asks of everybody. It accompanies every call, so that the private API alone decides."""

    requires_key: bool
    opens_models: bool
    """Whether callers may register models without the scope for it."""

    def to_header(self) -> str:
        """The value of `DOOR_POLICY_HEADER`."""
        return (
            f"key={'required' if self.requires_key else 'optional'} models={'open' if self.opens_models else 'scope'}"
        )

    @classmethod
    def from_header(cls, text: str | None) -> Self:
        """Reads what `to_header` made; an unknown word opens nothing."""
        if text is None:
            # A door from before keys existed: open to everybody, and it decides itself who registers models.
            return cls(requires_key=False, opens_models=True)
        words = text.split()
        return cls(requires_key="key=optional" not in words, opens_models="models=open" in words)
