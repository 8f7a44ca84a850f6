"""Who may do what: the scopes of keys, and how a door tells the private API who calls and what it lets everybody do."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Scope(StrEnum):
    """What a key is good for, beside its owner's own tasks."""

    SUBMIT = "submit"
    """Submit tasks."""
    MODELS = "models"
    """Register models."""
    OPERATE = "operate"
    """See, cancel and delete everybody's tasks."""
    ADMIN = "admin"
    """All of the above."""
    CONSUME = "consume"
    """Run tasks, and nothing else: for the consumers of one host. No other scope includes it."""


KEY_PATTERN = re.compile(r"is_([0-9a-f]{16})_([0-9a-f]{64})")
"""What every key looks like: its id, which is no secret, and its secret."""
CALLER_KEY_HEADER = "x-caller-key"
"""The key that a door was given. Doors make this header; one of a client's is never passed on."""
DOOR_POLICY_HEADER = "x-door-policy"


@dataclass(frozen=True)
class DoorPolicy:
    """What a door asks of everybody; it says so with every call, so that the private API alone decides."""

    requires_key: bool
    opens_models: bool
    """Whether callers may register models without the scope for it."""

    def to_header(self) -> str:
        """As the value of `DOOR_POLICY_HEADER`."""
        return (
            f"key={'required' if self.requires_key else 'optional'} models={'open' if self.opens_models else 'scope'}"
        )

    @classmethod
    def from_header(cls, text: str | None) -> Self:
        """What `to_header` made; a word that nobody knows opens nothing."""
        if text is None:
            # A door of the time before keys: open to everybody, and it decides itself who registers models.
            return cls(requires_key=False, opens_models=True)
        words = text.split()
        return cls(requires_key="key=optional" not in words, opens_models="models=open" in words)
