"""What the guard of a replica costs: a start and its removal, and calls, with a guard and without.

    .venv/bin/python -m benchmarks.guards [--starts 20] [--calls 3000]

Both are measured in turns in one run and compared by their medians. The calls are unary ones of 1 KB, one at a time,
to a container that sends them back.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import grpc

from benchmarks import figures
from job_consumer.engines import RunKey
from job_consumer.networks import NetworkAccess
from tests.engine_client import engine_client
from tests.integration.engine_harness import MIB, Harness, docker_harness
from tests.integration.replica_harness import PORT, backend_image, replica_network

_KINDS = {"without": False, "with": True}
_BATCH = 100
_LIMITS = {"memory_limit_bytes": 256 * MIB, "cpu_limit": None, "pids_limit": 128}


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--calls", type=int, default=3000)
    figures.add_option(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        client = stack.enter_context(closing(engine_client()))
        network = stack.enter_context(replica_network())
        harness = stack.enter_context(docker_harness(Path(folder) / "work", client))
        starts: dict[str, list[float]] = {kind: [] for kind in _KINDS}
        for number in range(asked.starts + 1):
            for kind, is_guarded in _KINDS.items():
                began_at = time.monotonic()
                key = start(harness, network, is_guarded=is_guarded)
                harness.engine.remove(key)
                # The first ones build and warm up.
                if number:
                    starts[kind].append(time.monotonic() - began_at)
        figures.record(asked.json, show("start and removal of a replica with a guard", starts, "ms"))
        keys = {kind: start(harness, network, is_guarded=is_guarded) for kind, is_guarded in _KINDS.items()}
        figures.record(asked.json, show("a call past a guard", call_in_turns(harness, keys, asked.calls), "ms"))
        for key in keys.values():
            harness.engine.remove(key)


def start(harness: Harness, network: str, *, is_guarded: bool) -> RunKey:
    """Start a replica of the echo server."""
    access = NetworkAccess(network, PORT, is_guarded=is_guarded)
    variables = {"PORT": str(PORT), "MODEL_DIR": "/model"}
    return harness.start_replica("", access, image=backend_image(), environment=variables, **_LIMITS)


def call_in_turns(harness: Harness, keys: dict[str, RunKey], calls: int) -> dict[str, list[float]]:
    """The seconds of each call, in batches by turns."""
    took: dict[str, list[float]] = {kind: [] for kind in keys}
    with ExitStack() as stack:
        methods = {}
        for kind, key in keys.items():
            address = harness.replica_engine.address(key, PORT)
            assert address is not None
            channel = stack.enter_context(grpc.insecure_channel(address))
            methods[kind] = channel.unary_unary("/tests.Echo/Say")
            methods[kind](b"x", wait_for_ready=True, timeout=60)
        for _ in range(calls // _BATCH):
            for kind, method in methods.items():
                for _ in range(_BATCH):
                    began_at = time.perf_counter()
                    method(bytes(1024), timeout=60)
                    took[kind].append(time.perf_counter() - began_at)
    return took


def show(what: str, took: dict[str, list[float]], unit: str) -> figures.Figure:
    """Print one comparison, and return it."""
    medians = {kind: statistics.median(values) * 1000 for kind, values in took.items()}
    print(
        f"{what:44} without {medians['without']:8.3f} {unit}   with {medians['with']:8.3f} {unit}   "
        f"ratio {medians['with'] / medians['without']:.3f}   ({len(took['with'])} each)"
    )
    return figures.compared(what, medians["with"], unit, medians["without"])


if __name__ == "__main__":
    main()
