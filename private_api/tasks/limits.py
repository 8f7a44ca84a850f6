"""The numbers of the state machine. Durations measured by the database's clock."""

from datetime import timedelta

from contract.statuses import Phase

LEASE = timedelta(seconds=60)
"""A holder that is silent for so long loses its task. Holders beat every sixth of it."""
MAX_CRASHES = 3
"""Leases that may expire before the task is taken for the cause of the crashes."""
MAX_INFRASTRUCTURE_FAILURES = 8
"""Counted apart from crashes: an unlucky host must not use up a user's retries."""
AMNESTY_AFTER = timedelta(seconds=15)
"""A reaper that was away for longer extends all leases first: holders could not beat meanwhile."""
_FIRST_BACKOFF = timedelta(seconds=10)
_LONGEST_BACKOFF = timedelta(minutes=10)


def backoff(failures: int) -> timedelta:
    """How long a task waits after its n-th infrastructure failure: 10 s, doubled up to 10 minutes."""
    doublings: int = 2 ** (failures - 1)
    return min(_FIRST_BACKOFF * doublings, _LONGEST_BACKOFF)


DEADLINE_GRACE = timedelta(minutes=1)
"""The holder keeps its deadlines itself; the server ends an attempt only where the holder does not."""


def phase_limit(phase: Phase, time_limit_s: int) -> timedelta:
    """How long an attempt may stay in a phase."""
    if phase is Phase.PREPARING:
        return timedelta(hours=2)
    if phase is Phase.RUNNING:
        return timedelta(seconds=time_limit_s)
    return timedelta(hours=6)
