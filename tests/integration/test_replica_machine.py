"""Any order of events around replicas and GPU tasks, on a real PostgreSQL: what must never be is looked for after each.

Holders are never retired, so every beat and every end may come from a zombie with an old fence.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from contract.access import ANONYMOUS
from contract.deployments import ReplicaAssignment, ReplicaReason
from contract.errors import StaleFence
from contract.schemas import Assignment
from contract.statuses import Phase, Status
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.deployment_tables import DeploymentRow, ReplicaRow
from private_api.deployments.deploy import undeploy_model
from private_api.deployments.rows import COUNTED, HOSTED, is_current, serving_of
from private_api.tables import AttemptRow, TaskRow
from private_api.task_logs import TaskLogs
from tests.examples import FEW_OR_ALL, fewer
from tests.integration.deployment_harness import ADDRESS, DeploymentHarness
from tests.integration.task_harness import GPU, Harness
from tests.integration.test_state_machine import empty_database
from tests.integration.test_state_machine import fast_store as fast_store  # noqa: PLC0414 - a fixture

CONSUMERS = {"g1": GPU, "g2": GPU[:-1] + "2", "c": None}
# Name, and what it has of a GPU: `plain` and `other` want one of their own.
MODELS = {"plain": True, "other": True, "shared": True, "light": False}
NTH = st.sampled_from([0, 0, 1, 1, 2, 3, 5, 8])
"""Which claim, counted from the newest."""
ENDS = st.sampled_from([ReplicaReason.CONTAINER_ENDED, ReplicaReason.RELEASED, ReplicaReason.SURPLUS])
NAMES, HOSTS = st.sampled_from(list(MODELS)), st.sampled_from(list(CONSUMERS))
SECONDS = st.sampled_from([3, 8, 20, 65, 400])
PRIORITY = st.sampled_from([-5, -1, 0, 5])

KINDS: dict[str, tuple[int, tuple[st.SearchStrategy[Any], ...]]] = {
    "scale": (6, ()),
    "claim_replica": (6, (HOSTS,)),
    "beat": (6, (NTH, st.booleans())),
    "end": (3, (NTH, ENDS)),
    "claim_task": (5, (HOSTS,)),
    "finish_task": (3, (NTH,)),
    "beat_task": (2, (NTH, st.sampled_from([Phase.RUNNING, Phase.DELIVERING]))),
    "prepare_task": (3, (HOSTS,)),
    "begin_task": (2, (NTH,)),
    "submit": (4, (NAMES, PRIORITY)),
    "report": (4, (NAMES, st.integers(0, 6), st.booleans())),
    "pass_time": (5, (SECONDS, st.booleans())),
    "deploy": (3, (NAMES, PRIORITY, st.integers(0, 2), st.booleans())),
    "undeploy": (1, (NAMES,)),
}
STEPS = st.sampled_from([name for name, (weight, _) in KINDS.items() for _ in range(weight)]).flatmap(
    lambda name: st.tuples(st.just(name), *KINDS[name][1])
)


class ReplicaRules(RuleBasedStateMachine):
    """Drives the rules and looks at the rows."""

    def __init__(self, plane: DeploymentHarness) -> None:
        super().__init__()
        self.plane = plane
        self.database = plane.tasks.database
        self.claims: list[ReplicaAssignment] = []
        self.tasks: list[Assignment] = []
        self.ended: dict[str, tuple[object, ...]] = {}

    @initialize()
    def begin(self) -> None:
        empty_database(self.database)
        self.plane.tasks.reap()
        for name, use_gpu in MODELS.items():
            self.plane.register(name, use_gpu=use_gpu)
        for name, gpu in CONSUMERS.items():
            self.plane.try_claim(name, gpu=gpu)
        # From here on every step may collide: one GPU has a replica, and tasks and another replica want one.
        self.deploy("plain", -1, 1, False)
        self.scale()
        self.claim_replica("g1")
        self.beat(self.claims[0], True)
        self.submit("plain", 0)
        self.submit("other", -5)
        self.deploy("other", -1, 2, False)
        self.deploy("light", -1, 1, True)

    @rule(step=STEPS)
    def happens(self, step: tuple[Any, ...]) -> None:
        name, *arguments = step
        pools: dict[str, list[Any]] = {
            **dict.fromkeys(["beat", "end"], self.claims),
            **dict.fromkeys(["finish_task", "beat_task", "begin_task"], self.tasks),
        }
        if name in pools:
            if not pools[name]:
                return
            arguments[0] = pools[name][-1 - arguments[0] % len(pools[name])]
        getattr(self, name)(*arguments)

    def scale(self) -> None:
        self.plane.scale()

    def deploy(self, name: str, priority: int, minimum: int, serves_tasks: bool) -> None:
        self.plane.deploy(
            name,
            priority=priority,
            replicas_min=minimum,
            replicas_max=2,
            target_in_flight=2,
            idle_timeout_s=30,
            serves_tasks=serves_tasks,
            share_gpu=name == "shared",
        )

    def undeploy(self, name: str) -> None:
        undeploy_model(self.database, name, ANONYMOUS)

    def report(self, name: str, busy: int, forgets: bool) -> None:
        ready = [row.uid for row in self.live() if row.status == "ready"]
        self.plane.report(name, in_flight=busy, replicas={} if forgets else dict.fromkeys(ready, busy))

    def claim_replica(self, consumer: str) -> None:
        held = self.plane.try_claim(consumer, gpu=CONSUMERS[consumer], slots=3)
        if held is not None:
            assert (held.uid, held.fence) not in {(claim.uid, claim.fence) for claim in self.claims}, "claimed twice"
            self.claims.append(held)

    def beat(self, held: ReplicaAssignment, ready: bool) -> None:
        row = self.plane.row(held.uid)

        def act() -> object:
            return self.plane.beat(held, ready=ready, consumer=row.consumer or "", address=ADDRESS)

        if self.is_refused(held, act):
            return
        after = self.plane.row(held.uid)
        assert after.lease_until is not None
        assert after.status == ("ready" if ready and row.status == "starting" else row.status)

    def end(self, held: ReplicaAssignment, reason: ReplicaReason) -> None:
        before = self.plane.row(held.uid)
        if before.status == "ended" and before.fence == held.fence:
            self.plane.end(held, reason)
        elif not self.is_refused(held, lambda: self.plane.end(held, reason)):
            after = self.plane.row(held.uid)
            assert (after.status, after.reason) == ("ended", before.reason or reason)

    def is_refused(self, held: ReplicaAssignment, act: Callable[[], object]) -> bool:
        row = self.plane.row(held.uid)
        if row.fence == held.fence and row.status in HOSTED:
            act()
            return False
        with pytest.raises(StaleFence):
            act()
        return True

    def submit(self, name: str, priority: int) -> None:
        self.plane.tasks.submit(name, priority=priority)

    def claim_task(self, consumer: str) -> None:
        held = self.plane.tasks.try_claim(consumer, gpu=CONSUMERS[consumer], slots=3)
        if held is None:
            return
        self.tasks.append(held)
        if held.replica_uid is not None:
            row = self.plane.row(held.replica_uid)
            assert (row.status, row.consumer, row.serves_tasks) == ("ready", consumer, True)
            assert row.model_version.model.human_readable_id == held.human_readable_id

    def finish_task(self, held: Assignment) -> None:
        row = self.plane.tasks.row(held.uid)
        if row.fence == held.fence and not Status(row.status).is_terminal:
            self.plane.tasks.commit(held)

    def beat_task(self, held: Assignment, phase: Phase) -> None:
        row = self.plane.tasks.row(held.uid)
        # A run that has ended does not run again.
        if row.fence == held.fence and not Status(row.status).is_terminal and row.phase != Phase.DELIVERING:
            self.plane.tasks.beat(held, phase)

    def prepare_task(self, consumer: str) -> None:
        """As a consumer that runs a task does."""
        held = self.plane.tasks.try_claim(consumer, gpu=CONSUMERS[consumer], slots=3, ahead=True)
        if held is not None:
            assert held.is_ahead
            assert not [row for row in self.live() if row.consumer == consumer and row.status in HOSTED]
            self.tasks.append(held)

    def begin_task(self, held: Assignment) -> None:
        row = self.plane.tasks.row(held.uid)
        if row.fence == held.fence and not Status(row.status).is_terminal:
            self.plane.tasks.begin(held)

    def pass_time(self, seconds: int, reaps: bool) -> None:
        self.plane.age(timedelta(seconds=seconds))
        if reaps:
            self.plane.tasks.reap()

    def live(self) -> list[ReplicaRow]:
        with self.database.read() as session:
            return list(session.scalars(select(ReplicaRow).where(ReplicaRow.ended_at.is_(None))))

    @invariant()
    def what_ended_never_changes(self) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(ReplicaRow).where(ReplicaRow.ended_at.is_not(None)))
            now = {row.uid: (row.status, row.reason, row.fence, row.ended_at, row.consumer) for row in rows}
        assert self.ended.items() <= now.items()
        self.ended = now

    @invariant()
    def a_gpu_has_one_owner(self) -> None:
        with self.database.read() as session:
            open_tasks = (
                select(AttemptRow.consumer)
                .join(TaskRow, TaskRow.id == AttemptRow.task_id)
                .where(AttemptRow.ended_at.is_(None), AttemptRow.replica_uid.is_(None), TaskRow.use_gpu.is_(True))
                .where(TaskRow.phase.is_distinct_from(Phase.DELIVERING))
            )
            tasks = Counter(session.scalars(open_tasks))
        live = self.live()
        for consumer, gpu in CONSUMERS.items():
            hosted = [row for row in live if row.status in HOSTED and row.consumer == consumer and row.use_gpu]
            if len(hosted) > 1 or (hosted and tasks[consumer]):
                assert all(row.share_gpu for row in hosted), f"{consumer} has more than one container on its GPU"
            assert gpu or not hosted

    @invariant()
    def no_deployment_has_more_than_its_maximum(self) -> None:
        with self.database.read() as session:
            deployments = list(session.scalars(select(DeploymentRow)))
        live = self.live()
        for deployment in deployments:
            own = [row for row in live if row.deployment_id == deployment.id and row.status in COUNTED]
            current = [row for row in own if is_current(row, deployment)]
            assert len(current) <= serving_of(deployment).replicas_max

    def teardown(self) -> None:
        """Whatever happened, nothing is stuck: all tasks run to their end, and then a replica gets every GPU."""
        for name in MODELS:
            undeploy_model(self.database, name, ANONYMOUS)
        self.settle()
        with self.database.read() as session:
            assert session.scalars(select(TaskRow.uid).where(TaskRow.ended_at.is_(None))).all() == []
        self.plane.deploy("plain", replicas_min=2, replicas_max=2)
        self.settle(lambda: self.plane.statuses("plain") == ["ready", "ready"])
        assert self.plane.statuses("plain") == ["ready", "ready"]

    def settle(self, is_settled: Callable[[], bool] = lambda: False) -> None:
        """Consumers and loops at work, until nothing is left to do or what is wanted is the case."""
        for _ in range(40):
            self.plane.age(timedelta(seconds=70))
            self.plane.tasks.reap()
            self.plane.scale()
            idle = True
            for consumer, gpu in CONSUMERS.items():
                while held := self.plane.tasks.try_claim(consumer, gpu=gpu):
                    self.plane.tasks.commit(held)
                    idle = False
                while replica := self.plane.try_claim(consumer, gpu=gpu):
                    self.plane.beat(replica, consumer=consumer)
                    self.claims.append(replica)
                    idle = False
            for row in self.live():
                if row.status in HOSTED and self.plane.beat_uid(row.uid).stop:
                    self.plane.end_uid(row.uid)
                    idle = False
            # With a deployment there is always something to do: each step takes longer than a lease.
            if is_settled() or (idle and not self.plane.scale()):
                return


@pytest.fixture
def database_on_postgres(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url)
    yield database
    database.close()


@pytest.mark.timeout(1800)
@FEW_OR_ALL
def test_every_order_of_events_keeps_one_container_on_a_gpu_and_nothing_is_stuck(
    share: int, database_on_postgres: Database, fast_store: ArchiveStore, logs: TaskLogs
) -> None:
    # Its end takes as long as its steps: everything that was begun is brought to an end.
    run_state_machine_as_test(
        lambda: ReplicaRules(DeploymentHarness(Harness(database_on_postgres, fast_store, logs))),
        settings=fewer(4 * share),
    )
