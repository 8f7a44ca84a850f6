"""How many replicas calls need, as a pure function of what gateways report and of what was needed before."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from contract.serving import ServingSpec


@dataclass(frozen=True)
class Need:
    """How many replicas calls need, and when they last needed that many."""

    replicas: int
    at: datetime


def assess_need(
    before: Need, serving: ServingSpec, *, in_flight: int, called_at: datetime | None, now: datetime
) -> Need:
    """The new need: it rises at once, and falls only after calls needed fewer for the idle timeout."""
    per_replica = min(serving.target_in_flight, serving.max_in_flight)
    needed = min(ceil(in_flight / per_replica), serving.replicas_max)
    idle = timedelta(seconds=serving.idle_timeout_s)
    if needed and needed >= before.replicas:
        return Need(needed, now)
    # A call from before the last decision was part of it, even if an eviction overruled it.
    if called_at is not None and called_at > before.at and now - called_at <= idle and before.replicas <= 1:
        return Need(1, called_at)
    if before.replicas and now - before.at > idle:
        was_called = called_at is not None and now - called_at <= idle
        # The next step down takes the idle timeout again.
        return Need(max(needed, int(was_called)), now)
    return before


def clamp(need: Need, serving: ServingSpec) -> int:
    """How many replicas there should be, within the bounds of the deployment."""
    return max(serving.replicas_min, min(need.replicas, serving.replicas_max))
