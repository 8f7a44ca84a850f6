"""Tasks behind a model with calls always open on the one GPU: how long they and the calls wait, with turns and without.

    .venv/bin/python -m benchmarks.batch_beside_live [--seconds 180] [--tasks 3] [--task-seconds 10] [--yield-after 60]

A private API over SQLite, a gateway and a consumer run in this process, replicas and tasks in containers; no GPU is
needed. Without turns stands for releases that had none: a replica with calls never left. Goal: with turns, the first
task waits at most 10 s longer than the limit, and no call is refused.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from contract.schemas import TaskView
from tests.integration.callers import Callers
from tests.integration.grpc_harness import RunningGateway, run_harness_gateway
from tests.integration.replica_harness import GPU, ReplicaHarness, replica_harness
from tests.running_api import run_private_api
from tests.waiting import wait_until

_NEVER = timedelta(days=1)
_CALLERS = 4


def main() -> None:
    """Print the waits of the tasks and the times of the calls, without turns and with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="how long each of both is measured")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--task-seconds", type=float, default=10)
    parser.add_argument("--yield-after", type=float, default=60)
    arguments = parser.parse_args()
    print(f"{arguments.tasks} tasks of {arguments.task_seconds:g} s behind {_CALLERS} callers that are never done")
    for name, yield_after in (("without", _NEVER), ("with", timedelta(seconds=arguments.yield_after))):
        with running(yield_after) as (harness, gateway):
            callers = Callers(gateway, "/tests.Echo/Say", (("application", "warm"),), patience_s=arguments.seconds)
            with callers.calling(_CALLERS):
                uids = [harness.submit("batch", sleep_s=arguments.task_seconds) for _ in range(arguments.tasks)]
                time.sleep(arguments.seconds)
            report(name, [harness.task(uid) for uid in uids], callers, arguments.seconds)


@contextmanager
def running(yield_after: timedelta) -> Iterator[tuple[ReplicaHarness, RunningGateway]]:
    """A server with one GPU, held by a model that is kept warm, while the block is open."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/inference.db"
        api = stack.enter_context(run_private_api(url, folder / "data", yield_after=yield_after))
        harness = stack.enter_context(replica_harness(api, folder / "work"))
        gateway = stack.enter_context(run_harness_gateway(api.url))
        for model in ("warm", "batch"):
            harness.register(model, use_gpu=True)
        stack.enter_context(harness.consumer(gpu_uuid=GPU))
        harness.deploy()
        harness.replica()
        wait_until(lambda: gateway.server.table.deployments["warm"].replicas, "the replica is in the table")
        yield harness, gateway


def report(name: str, tasks: list[TaskView], callers: Callers, seconds: float) -> None:
    """Print one line about the tasks and one about the calls."""
    waits = [(task.started_at - task.created_at).total_seconds() for task in tasks if task.started_at]
    begun = ", ".join(f"{wait:.1f}" for wait in waits) or "none"
    latencies = statistics.quantiles(callers.latencies_s, n=100)
    print(f"{name:8} turns: tasks that began within {seconds:g} s: {len(waits)} of {len(tasks)}, after (s): {begun}")
    print(
        f"               calls: {callers.answered}, p50 {latencies[49] * 1000:.1f} ms, p99 {latencies[98] * 1000:.1f} "
        f"ms, longest {max(callers.latencies_s):.1f} s, refused {len(callers.refused)}"
    )


if __name__ == "__main__":
    main()
