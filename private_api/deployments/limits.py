"""The numbers of deployments. Durations are measured by the database's clock."""

from datetime import timedelta

GATEWAY_SILENCE = timedelta(seconds=5)
"""A gateway that is silent for this long counts as gone and keeps no replica from ending."""
GATEWAY_KEPT = timedelta(minutes=1)
STEADY_AFTER = timedelta(seconds=60)
"""Once a replica has been ready for this long, earlier failures are forgotten."""
RELEASE_PAUSE = timedelta(seconds=2)
"""How long no replica starts after a consumer gave one back, which would otherwise claim it again at once."""
WAIT_TOLD_AFTER = timedelta(seconds=3)
"""A replica that waits longer than this says what it waits for."""
LEFT_TO_OTHERS_FOR = timedelta(seconds=7)
"""How long a replica is left to consumers that host fewer of its deployment: they ask every 5 s."""
EVICT_AFTER = timedelta(seconds=2)
"""How long a task waits for a GPU before a replica is evicted for it."""
IDLE_BEFORE_EVICTION = timedelta(seconds=5)
_FIRST_BACKOFF = timedelta(seconds=1)
_LONGEST_BACKOFF = timedelta(minutes=5)
_MOST_DOUBLINGS = 16


def backoff(failures: int) -> timedelta:
    """How long no replica starts after the n-th in a row ended by itself: 1 s, doubling up to 5 min."""
    doublings: int = 2 ** min(failures - 1, _MOST_DOUBLINGS)
    return min(_FIRST_BACKOFF * doublings, _LONGEST_BACKOFF)
