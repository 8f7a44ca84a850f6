"""What keeps an owner's submissions within its quotas, however many arrive at once."""

import math
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from contract.errors import QuotaExceeded
from contract.quotas import Quota, QuotaUnit
from kit.sizes import say_bytes
from private_api.database import Database
from private_api.quotas.limits import Limits
from private_api.quotas.refusals import refuse
from private_api.quotas.usage import read_usage, seconds_until_room

_COUNTED = (Quota.QUEUED, Quota.STORED, Quota.DAILY)
"""What a submission adds to. What runs is decided by claims, and uploads are counted where they arrive."""


@dataclass(frozen=True)
class Addition:
    """What a submission adds to what its owner has."""

    size_bytes: int
    """Of its input; at least so many, as long as it has not arrived."""
    is_upload: bool = True
    """False for a rerun, whose input is there."""

    def to(self, quota: Quota) -> int:
        """How much of a quota it takes."""
        if quota is Quota.DAILY and not self.is_upload:
            return 0
        return 1 if quota.unit is QuotaUnit.TASKS else self.size_bytes


@dataclass(frozen=True)
class _Excess:
    """A quota that has no room."""

    quota: Quota
    limit: int
    used: int
    added: int

    def refusal(self, said: str, retry_after_s: int | None = None) -> QuotaExceeded:
        return refuse(self.quota, self.limit, self.used, said, retry_after_s)

    def describe(self) -> str:
        """The sizes in words."""
        if self.added > self.limit:
            return f"this input alone has {say_bytes(self.added)}, and there may be {say_bytes(self.limit)}"
        how = "are stored" if self.quota is Quota.STORED else "were uploaded in the last 24 hours"
        return f"{say_bytes(self.used)} of {say_bytes(self.limit)} {how}, and this input has {say_bytes(self.added)}"


def are_counted(owner: str | None, limits: Limits) -> bool:
    """Whether anything limits what the owner submits."""
    return owner is not None and any(limits[quota] is not None for quota in _COUNTED)


def check_quotas(session: Session, owner: str | None, limits: Limits, addition: Addition, now: datetime) -> None:
    """Raises `QuotaExceeded` if the owner's quotas have no room for one more submission, as things stand."""
    if owner is None:
        return
    for quota in _COUNTED:
        limit, added = limits[quota], addition.to(quota)
        if limit is None or not added:
            continue
        used = read_usage(session, owner, quota, now)
        if used + added > limit:
            raise _refusal(session, owner, _Excess(quota, limit, used, added), now)


def admit(database: Database, session: Session, owner: str | None, limits: Limits, addition: Addition) -> None:
    """The same for good: until the transaction ends, no other submission of this owner is counted.

    Of a crowd that finds the last place free, one gets it.
    """
    if owner is None or not are_counted(owner, limits):
        return
    database.serialize(session, f"quotas of {owner}")
    check_quotas(session, owner, limits, addition, database.now(session))


def _refusal(session: Session, owner: str, excess: _Excess, now: datetime) -> QuotaExceeded:
    if excess.quota is Quota.QUEUED:
        said = f"{excess.used} of {excess.limit} tasks wait"
        return excess.refusal(f"{said}; submit again once some of them have begun, or cancel some")
    if excess.added > excess.limit:
        return excess.refusal(f"{excess.describe()}; send less at once")
    if excess.quota is Quota.STORED:
        return excess.refusal(f"{excess.describe()}; delete tasks that nobody needs any more")
    wait_s = seconds_until_room(session, owner, excess.used + excess.added - excess.limit, now)
    how = "send it later" if wait_s is None else f"there is room for it in {_say_wait(wait_s)}"
    return excess.refusal(f"{excess.describe()}; {how}", wait_s)


def _say_wait(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{math.ceil(seconds / 60)} minutes" if seconds < 7200 else f"{math.ceil(seconds / 3600)} hours"
