"""The numbers of deployments. Durations measured by the database's clock; leases are those of tasks."""

from datetime import timedelta

GATEWAY_SILENCE = timedelta(seconds=5)
"""A gateway that did not report for so long counts as gone: it holds no replica back from ending."""
GATEWAY_KEPT = timedelta(minutes=1)
STEADY_AFTER = timedelta(seconds=60)
"""A replica that was ready for so long is taken to work: earlier failures are forgotten."""
RELEASE_PAUSE = timedelta(seconds=2)
"""After a consumer gave a replica back: the same one would ask for it again at once."""
WAIT_TOLD_AFTER = timedelta(seconds=3)
"""A replica that waits for longer says what for."""
LEFT_TO_OTHERS_FOR = timedelta(seconds=7)
"""A replica is left so long to a consumer that hosts fewer of its deployment: such a one asks every 5 s."""
EVICT_AFTER = timedelta(seconds=2)
"""A task waits so long for a GPU before a replica has to go for it."""
IDLE_BEFORE_EVICTION = timedelta(seconds=5)
_FIRST_BACKOFF = timedelta(seconds=1)
_LONGEST_BACKOFF = timedelta(minutes=5)
_MOST_DOUBLINGS = 16


def backoff(failures: int) -> timedelta:
    """How long no replica is started after the n-th one in a row that ended by itself: 1 s, doubled up to 5 min."""
    doublings: int = 2 ** min(failures - 1, _MOST_DOUBLINGS)
    return min(_FIRST_BACKOFF * doublings, _LONGEST_BACKOFF)
