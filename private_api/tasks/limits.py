"""The numbers of the state machine. Durations are measured by the database's clock."""

from dataclasses import dataclass
from datetime import timedelta

from contract.statuses import Phase
from contract.zip_rules import MAX_ENTRIES

MAX_CRASHES = 3
"""How many leases expire before the task itself is blamed for the crashes; see `private_api.tasks.blame`."""
MAX_INFRASTRUCTURE_FAILURES = 8
"""Counted apart from crashes, so that a bad host does not use up a user's retries."""
MOST_FAILURES = 8
"""Times either limit: after so many a task ends even if one consumer alone had them while others were there."""
_FIRST_BACKOFF = timedelta(seconds=10)
_LONGEST_BACKOFF = timedelta(minutes=10)


def backoff(failures: int) -> timedelta:
    """How long a task waits after its n-th infrastructure failure: 10 s, doubling up to 10 minutes."""
    # The bound is passed long before the product is too large for a `timedelta`.
    doublings: int = 2 ** min(failures - 1, 10)
    return min(_FIRST_BACKOFF * doublings, _LONGEST_BACKOFF)


DEADLINE_GRACE = timedelta(minutes=1)
"""Holders keep their own deadlines; the server ends an attempt only if its holder did not in this time."""


def phase_limit(phase: Phase, time_limit_s: int) -> timedelta:
    """How long an attempt may stay in a phase."""
    if phase is Phase.PREPARING:
        return timedelta(hours=2)
    if phase is Phase.RUNNING:
        return timedelta(seconds=time_limit_s)
    return timedelta(hours=6)


@dataclass(frozen=True)
class SizeLimits:
    """What one task may move."""

    max_unpacked_bytes: int
    max_output_bytes: int
    max_entries: int = MAX_ENTRIES
    """Files and folders of an archive."""
