"""Decides whether a deployment is ready, and waits until it is."""

import time
from collections.abc import Callable

from inference_client.errors import DeploymentFailing, WaitTimeout
from inference_client.schemas import DeploymentView
from inference_client.statuses import ReplicaStatus
from inference_client.units import format_duration

_PAUSE_S = 1.0
_ON_THE_WAY = (ReplicaStatus.WANTED, ReplicaStatus.STARTING)


def is_ready(view: DeploymentView) -> bool:
    """Whether every replica that should answer does. True for a deployment that needs none, because nobody calls it."""
    statuses = [replica.status for replica in view.replicas]
    is_enough = statuses.count(ReplicaStatus.READY) >= view.serving.replicas_min
    return is_enough and not any(status in _ON_THE_WAY for status in statuses)


def wait_until_ready(
    ask: Callable[[], DeploymentView],
    sleep: Callable[[float], None],
    *,
    timeout_s: float | None,
    on_change: Callable[[DeploymentView], None] | None,
) -> DeploymentView:
    """Ask until the deployment is ready. Raises `DeploymentFailing`, `WaitTimeout`, and what `ask` raises."""
    started = time.monotonic()
    seen: DeploymentView | None = None
    while True:
        view = ask()
        if on_change is not None and view != seen:
            on_change(view)
        seen = view
        if view.failures:
            detail = view.detail or "its replicas end by themselves"
            raise DeploymentFailing(f"{view.human_readable_id} fails: {detail}", failures=view.failures)
        if is_ready(view):
            return view
        if timeout_s is not None and time.monotonic() - started >= timeout_s:
            why = f": {view.detail}" if view.detail else ""
            raise WaitTimeout(
                f"{view.human_readable_id} is not ready within {format_duration(timeout_s)}; it goes on{why}",
                status=view.status,
            )
        sleep(_PAUSE_S)
