"""What a number of tasks asks of each part of a server, and which part is the first that has not enough. Pure.

The model is linear: what one task costs, times how many there are a second. It says where a part is full, not how long
anybody waits before it is; beyond `FULL` of a part queues grow fast, so that counts as its end.
"""

from dataclasses import dataclass, fields
from typing import Any

FULL = 0.7
"""How much of a part may be in use before others wait for it noticeably."""
DAY_S = 86_400
_BEAT_S = 10.0
"""Between two heartbeats of a task that runs: a sixth of a lease, `job_consumer/heartbeat.py`."""
_POLL_S = 30.0
"""How long a client's long poll stays open before it asks again."""
_NETWORK_MIB_S = 1192.0
"""10 Gbit/s. Not measured: what a host of this kind has."""
_DATABASE_CORES = 4
"""What PostgreSQL's host has. Not measured."""
_BROKER_S = 2000.0
"""Durable messages that RabbitMQ takes and delivers in a second. Not measured: far below what its makers publish."""


@dataclass(frozen=True)
class Costs:
    """What one unit of work takes, measured by `benchmarks.scale --check` unless it is said otherwise."""

    private_task_s: float
    """CPU of the private API for a task without its bytes: submission, claim, heartbeats, commit, poll. Seconds."""
    public_task_s: float
    database_task_s: float
    """CPU of PostgreSQL."""
    commits_per_task: float
    """Transactions, those that only read included."""
    rows_per_task_kib: float
    """What the database grows by."""
    private_idle_cores: float
    """What it takes while nothing happens: its loops, and one consumer that asks now and then."""
    database_idle_cores: float
    private_call_s: float
    """CPU for a poll that finds a task waiting; a heartbeat counts as one, too."""
    public_call_s: float
    database_call_s: float
    private_mib_s: float
    """CPU of a MiB that passes the private API once."""
    public_mib_s: float
    gap_s: float
    """What a consumer adds to a run."""
    sync_s: float
    """A durable commit of one row, one after another."""
    copy_mib_s: float
    """What a disk takes of a copy with sha256 and fsync, MiB in a second."""
    forgets_s: float
    """Tasks that the janitor removes in a second: `benchmarks.janitor`."""


COSTS = [field.name for field in fields(Costs)]


@dataclass(frozen=True)
class Fleet:
    """What there is to do."""

    name: str
    run_s: float
    """How long a task has its GPU."""
    input_mib: float
    output_mib: float
    gpus: int | None = None
    """All of them always busy; or else:"""
    tasks_per_day: float | None = None

    def rate(self, costs: Costs) -> float:
        """Tasks in a second."""
        if self.tasks_per_day is not None:
            return self.tasks_per_day / DAY_S
        return (self.gpus or 0) / (self.run_s + costs.gap_s)

    def busy_gpus(self, costs: Costs) -> float:
        """How many GPUs that keeps busy."""
        return self.rate(costs) * (self.run_s + costs.gap_s)


SCAN = {"run_s": 60, "input_mib": 100, "output_mib": 10}
FLEETS = (
    Fleet("ten GPUs", gpus=10, **SCAN),
    Fleet("a hundred GPUs", gpus=100, **SCAN),
    Fleet("a thousand GPUs", gpus=1000, **SCAN),
    Fleet("a million tasks a day", tasks_per_day=1_000_000, run_s=5, input_mib=1, output_mib=0.1),
)


@dataclass(frozen=True)
class Part:
    """How much of one part is asked for."""

    name: str
    asked: float
    has: float
    """As it is started today: one of it."""
    unit: str

    @property
    def use(self) -> float:
        """The part of it that is in use; more than 1 is more than it can do."""
        return self.asked / self.has

    @property
    def is_full(self) -> bool:
        return self.use > FULL

    @property
    def needed(self) -> int:
        """How many of it would do, if it could be had more than once."""
        return max(1, -int(-self.use // FULL))


def parts(fleet: Fleet, costs: Costs) -> list[Part]:
    """What the fleet asks of each part."""
    rate = fleet.rate(costs)
    beats, polls = rate * fleet.run_s / _BEAT_S, rate * fleet.run_s / _POLL_S
    through_door = rate * (fleet.input_mib + fleet.output_mib)
    # In from the door and out to the consumer, and the same for the output.
    through_private = 2 * through_door
    public = rate * costs.public_task_s + polls * costs.public_call_s + through_door * costs.public_mib_s
    private = costs.private_idle_cores + (
        rate * costs.private_task_s + (beats + polls) * costs.private_call_s + through_private * costs.private_mib_s
    )
    database = costs.database_idle_cores + rate * costs.database_task_s + (beats + polls) * costs.database_call_s
    return [
        Part("public API", public, 1, "cores"),
        Part("private API", private, 1, "cores"),
        Part("PostgreSQL, CPU", database, _DATABASE_CORES, "cores"),
        Part("PostgreSQL, transactions", rate * costs.commits_per_task + beats, 1 / costs.sync_s, "a second"),
        Part("disk of the archives", through_private, costs.copy_mib_s, "MiB/s"),
        Part("network of the private API", through_private, _NETWORK_MIB_S, "MiB/s"),
        Part("janitor", rate, costs.forgets_s, "tasks/s"),
        Part("broker", rate, _BROKER_S, "messages/s"),
    ]


def first_full(fleet: Fleet, costs: Costs) -> Part:
    """The part of which most is in use."""
    return max(parts(fleet, costs), key=lambda part: part.use)


def most_per_day(fleet: Fleet, costs: Costs) -> float:
    """How many tasks like the fleet's a day there may be before the first part is full."""
    return fleet.rate(costs) * DAY_S * FULL / first_full(fleet, costs).use


def kept_tib(fleet: Fleet, costs: Costs, days: float = 30) -> float:
    """What the archives of so many days need, `KEEP_FINISHED_FOR`."""
    return fleet.rate(costs) * DAY_S * days * (fleet.input_mib + fleet.output_mib) / 1024**2


def rows_gib(fleet: Fleet, costs: Costs, days: float = 365) -> float:
    """What the database needs for so many days, `KEEP_RECORDS_FOR`."""
    return fleet.rate(costs) * DAY_S * days * costs.rows_per_task_kib / 1024**2


def tables(costs: Costs) -> str:
    """The model's answers for all fleets, as a page shows them."""
    lines = [
        "| | tasks a day | GPUs busy | full first | at tasks a day | archives of 30 days | rows of a year |",
        "|---|---|---|---|---|---|---|",
    ]
    for fleet in FLEETS:
        first = first_full(fleet, costs)
        cells: list[Any] = [
            fleet.name,
            f"{fleet.rate(costs) * DAY_S:,.0f}",
            f"{fleet.busy_gpus(costs):.0f}",
            first.name,
            f"{most_per_day(fleet, costs):,.0f}",
            f"{kept_tib(fleet, costs):,.1f} TiB",
            f"{rows_gib(fleet, costs):,.0f} GiB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| part, in use | " + " | ".join(fleet.name for fleet in FLEETS) + " |"]
    lines.append("|---|" + "---|" * len(FLEETS))
    for row in zip(*(parts(fleet, costs) for fleet in FLEETS), strict=True):
        shown = [f"{part.use:.1%}" + (f", **{part.needed} of it**" if part.is_full else "") for part in row]
        has = f"{row[0].has:,.0f} {row[0].unit if row[0].has != 1 else row[0].unit.removesuffix('s')}"
        lines.append(f"| {row[0].name}: {has} | " + " | ".join(shown) + " |")
    return "\n".join(lines)
