"""The steps that the state machine of tasks takes, and how often."""

from datetime import timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st
from sqlalchemy import text

from contract.statuses import Phase, Reason
from private_api.columns import Base
from private_api.database import Database
from private_api.server_tables import ServerRow
from private_api.tasks.cancel import cancel_task, delete_task
from tests.integration.task_harness import GPU

Consumer = tuple[str, str | None, bool]
"""Name, GPU, and whether it takes CPU tasks too."""
PATIENT = timedelta(days=3650)
CONSUMERS = st.sampled_from([("both", GPU, True), ("cpu", None, True), ("gpu", GPU, False)])
SECONDS = st.sampled_from([110, 110, 45, 700, 8000])
"""Multiples of 5, like every limit: the milliseconds between two looks at the clock never decide what is due."""
NTH = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8])
"""Which task or claim, counted from the newest."""

SAYS = st.sampled_from(["nothing", "nothing", "all", "none", "late"])
"""What a claim says of what its consumer holds; one that is late was overtaken by a later one."""


class Kind(NamedTuple):
    """A kind of step: how often it happens beside the others, and the arguments of the machine's method."""

    weight: int
    arguments: tuple[st.SearchStrategy[Any], ...]


# One rule over a table, because Hypothesis leaves rules out at random: with ten of them most runs would have no claim,
# no passing of time, or nobody who reports.
KINDS = {
    "claim": Kind(6, (CONSUMERS, st.sampled_from(["heard", "doubled", "lost", "unheard"]), SAYS)),
    "prepare": Kind(3, (CONSUMERS,)),
    "begin_ahead": Kind(2, (NTH,)),
    "beat": Kind(4, (NTH, st.sampled_from(Phase))),
    "pass_time": Kind(6, (SECONDS, st.sampled_from([False, False, True]))),
    "set_clock": Kind(2, (SECONDS, st.booleans())),
    "release": Kind(2, (NTH, st.booleans())),
    "commit": Kind(4, (NTH, st.sampled_from([b"one", b"two"]))),
    "fail": Kind(1, (NTH, st.sampled_from([Reason.EXIT_CODE, Reason.CANCELLED]))),
    "submit": Kind(2, (st.booleans(), st.booleans())),
    "submit_again": Kind(1, (NTH, st.booleans())),
    "end": Kind(3, (NTH, st.sampled_from([cancel_task, delete_task]))),
}
STEPS = st.sampled_from([name for name, kind in KINDS.items() for _ in range(kind.weight)]).flatmap(
    lambda name: st.tuples(st.just(name), *KINDS[name].arguments)
)


def empty_database(database: Database) -> None:
    with database.engine.begin() as connection:
        # Past the triggers that keep history: a fresh database for each of hundreds of runs would take minutes.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in Base.metadata.tables.values():
            if table.name != ServerRow.__tablename__:
                connection.execute(table.delete())
