"""Quotas in words: what of a server one owner may have."""

from enum import StrEnum


class QuotaUnit(StrEnum):
    """What a quota counts."""

    TASKS = "tasks"
    BYTES = "bytes"
    UPLOADS = "uploads"
    REQUESTS = "requests"


class Quota(StrEnum):
    """What is counted of an owner, and may be limited."""

    QUEUED = "queued"
    """Its tasks that wait."""
    RUNNING = "running"
    """Its tasks that consumers hold."""
    STORED = "stored"
    """The bytes of its tasks' inputs and outputs that are kept."""
    DAILY = "daily"
    """The bytes of inputs that it uploaded in the last 24 hours, those of deleted tasks included."""
    UPLOADS = "uploads"
    """Its zips that arrive right now, of inputs and of models."""
    REQUESTS = "requests"
    """Its requests to the HTTP API in one second."""

    @property
    def unit(self) -> QuotaUnit:
        """What it counts."""
        if self in (Quota.QUEUED, Quota.RUNNING):
            return QuotaUnit.TASKS
        if self in (Quota.UPLOADS, Quota.REQUESTS):
            return QuotaUnit(self.value)
        return QuotaUnit.BYTES


HIGHEST_LIMIT = 2**62
"""Any number above what a server can have."""
