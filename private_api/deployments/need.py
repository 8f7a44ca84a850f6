"""How many replicas calls need: a pure function of what gateways see and of what was needed before."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from contract.serving import Serving


@dataclass(frozen=True)
class Need:
    """So many replicas, as calls last needed at `at`."""

    replicas: int
    at: datetime


def assess_need(before: Need, serving: Serving, *, in_flight: int, called_at: datetime | None, now: datetime) -> Need:
    """More at once where calls need more; fewer only once they needed fewer for the idle timeout."""
    per_replica = min(serving.target_in_flight, serving.max_in_flight)
    needed = min(ceil(in_flight / per_replica), serving.replicas_max)
    idle = timedelta(seconds=serving.idle_timeout_s)
    if needed and needed >= before.replicas:
        return Need(needed, now)
    # A call from before the last decision was part of it: one that an eviction overruled wants nothing.
    if called_at is not None and called_at > before.at and now - called_at <= idle and before.replicas <= 1:
        return Need(1, called_at)
    if before.replicas and now - before.at > idle:
        was_called = called_at is not None and now - called_at <= idle
        # The next step down takes the idle timeout again.
        return Need(max(needed, int(was_called)), now)
    return before


def clamp(need: Need, serving: Serving) -> int:
    """How many replicas there should be."""
    return max(serving.replicas_min, min(need.replicas, serving.replicas_max))
