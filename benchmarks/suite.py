"""What `make bench` runs, in which order, and how large: `small` takes minutes, `full` is what the goals speak of."""

from dataclasses import dataclass
from typing import Literal

Size = Literal["small", "full"]


@dataclass(frozen=True)
class Entry:
    """One row of runs in the table."""

    name: str
    """What `ONLY` picks it by."""
    module: str
    """In `benchmarks`."""
    small: str = ""
    """The options of a small run."""
    full: str = ""
    needs: tuple[str, ...] = ()
    """What of `benchmarks.machine.FACILITIES` it cannot run without."""


_DOCKER, _DATABASE, _SERVICES = ("docker",), ("postgres",), ("docker", "postgres", "rabbitmq")
_COMPOSE = ("docker", "compose")

ENTRIES = (
    Entry("starts", "starts", "--rounds 3", "--rounds 10"),
    Entry("overhead", "overhead", "--rounds 5", "--rounds 30", _DOCKER),
    Entry("overhead-services", "overhead", "--rounds 5 --system services", "--rounds 30 --system services", _SERVICES),
    Entry("overhead-compose", "overhead", "--rounds 5 --system compose", "--rounds 30 --system compose", _COMPOSE),
    Entry("throughput", "throughput", "--tasks 12", "--tasks 200", _SERVICES),
    Entry("idle-gap", "idle_gap", "--mib 16 --run-s 3 --tasks 3", "--mib 512 --run-s 15 --tasks 6", _DOCKER),
    Entry(
        "transfer",
        "transfer",
        "--system standalone --mib 4,16,64 --rounds 2",
        "--system standalone --mib 8,64,512 --rounds 3",
        _DOCKER,
    ),
    Entry(
        "transfer-services",
        "transfer",
        "--system services --mib 64 --rounds 2",
        "--system services --mib 512 --rounds 3",
        _SERVICES,
    ),
    Entry(
        "transfer-compose",
        "transfer",
        "--system compose --mib 64 --rounds 2",
        "--system compose --mib 512 --rounds 3",
        _COMPOSE,
    ),
    Entry("posts", "posts", "--seconds 3 --rounds 1 --clients 1,8,32", "--clients 1,8,32,128", _SERVICES),
    Entry(
        "posts-standalone",
        "posts",
        "--system standalone --seconds 3 --rounds 1",
        "--system standalone",
        _DOCKER,
    ),
    Entry(
        "pollers",
        "pollers",
        "--seconds 3 --clients 1,8,32 --pollers 50 --long 100 --depths 1000,10000",
        "--clients 1,8,32,128 --depths 1000,10000,100000",
        _SERVICES,
    ),
    Entry(
        "claims",
        "claims",
        "--ended 1000,20000 --queued 1000,10000 --claims 100",
        "--ended 1000,100000,1000000 --queued 1000,10000,100000 --claims 1000",
        _DATABASE,
    ),
    Entry("queue-core", "queue_core", "--tasks 10", "--tasks 100 --seconds 10", _DATABASE),
    Entry("janitor", "janitor", "--tasks 20000 --due 200 --logs 2000", "", _DATABASE),
    Entry("grpc", "grpc", "--rounds 1 --seconds 1", "", _COMPOSE),
    Entry("front", "front", "--rounds 1 --seconds 1", "", _COMPOSE),
    Entry("cancel", "cancel", "--rounds 4", "", _DOCKER),
    Entry("guards", "guards", "--starts 4 --calls 300", "", _DOCKER),
    Entry("engine-filter", "engine_filter", "--rounds 8", "", _DOCKER),
    Entry("scale", "scale", "--check --tasks 20", "--check --tasks 200", _SERVICES),
)


def picked(only: str) -> list[Entry]:
    """The entries that are named, in their order; all of them for an empty text. Raises `ValueError`."""
    names = only.replace(",", " ").split()
    unknown = sorted(set(names) - {entry.name for entry in ENTRIES})
    if unknown:
        raise ValueError(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(e.name for e in ENTRIES)}")
    return [entry for entry in ENTRIES if not names or entry.name in names]
