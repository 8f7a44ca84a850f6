"""How long a cancel takes to reach a running container: from the call at the door to the signal inside.

    .venv/bin/python -m benchmarks.cancel [--rounds 20] [--system standalone|services]

The Engine says when it passed TERM on. Goal: 2 s at the 95th percentile.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import docker

from benchmarks import figures
from benchmarks.overhead import running
from job_consumer.heartbeat import BEATS_PER_LEASE
from private_api.leases import LEASE
from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import script_image
from tests.waiting import wait_until

GOAL_S = 2.0
_SCRIPT = "trap 'exit 1' TERM; echo READY; while :; do sleep 0.02; done"


def main() -> None:
    """Print the median and the 95th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--system", choices=("standalone", "services"), default="standalone")
    figures.add_option(parser)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(arguments.system, Path(folder)) as system,
        door_of(system.url) as door,
    ):
        model = door.add_model(script_image(_SCRIPT))
        seconds = sorted(_cancel(door, model, turn / arguments.rounds) for turn in range(arguments.rounds))
    p95 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.95))]
    print(f"system                    {arguments.system}, {len(seconds)} cancels of running containers")
    print(f"from cancel to TERM       median {statistics.median(seconds):.2f} s, p95 {p95:.2f} s (goal: {GOAL_S:g} s)")
    figures.record(arguments.json, figures.Figure("from cancel to TERM, p95", p95, "s", goal=figures.at_most(GOAL_S)))


def _cancel(door: DoorClient, model: str, part: float) -> float:
    """Seconds from a cancel, after this part of the time between two heartbeats, until the container has its signal."""
    uid = door.submit(model, {"a": b"1"})
    log = f"/api/tasks/{uid}/logs"
    wait_until(lambda: "READY" in door.http.get(log).text, "the container runs")
    time.sleep(part * LEASE.total_seconds() / BEATS_PER_LEASE)
    began = time.time()
    assert door.http.post(f"/api/tasks/{uid}/cancel").status_code == 200
    door.ended(uid)
    with contextlib.closing(docker.from_env()) as host:
        events = host.events(since=int(began), until=int(time.time()) + 1, filters={"event": "kill"}, decode=True)
        told = min(event["timeNano"] / 1e9 for event in events if uid in str(event["Actor"]["Attributes"]))
    return float(told - began)


if __name__ == "__main__":
    main()
