"""Drives the rules of deployments as routes and loops do, and looks at the rows behind them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from contract.access import ANONYMOUS, Caller, Scope
from contract.deployments import (
    DeploymentLoad,
    DeploymentView,
    GatewayReport,
    ReplicaAssignment,
    ReplicaBeat,
    ReplicaBeatReply,
    ReplicaClaim,
    ReplicaEnd,
    ReplicaReason,
    ReplicaView,
)
from contract.serving import ServingSpec
from private_api.columns import Base
from private_api.deployment_tables import DeploymentRow, GatewayRow, ReplicaRow
from private_api.deployments.deploy import deploy_model
from private_api.deployments.gateways import note_demand, note_report
from private_api.deployments.read import show_deployment
from private_api.deployments.replicas import Hosting, beat_replica, end_replica
from private_api.loops.scaler import Scaler
from private_api.placement.replica_claim import claim_replica
from private_api.settings import YIELD_AFTER
from private_api.tables import ConsumerRow, TaskRow
from tests.integration.task_harness import GPU, Harness

HOSTING = Hosting("a-service-token-of-the-tests", "grpc-gateway:9000", 1024**3)
ADDRESS = "10.0.0.7:8001"


@dataclass(frozen=True)
class DeploymentHarness:
    """The harness of tasks, and beside it deployments."""

    tasks: Harness

    def register(self, name: str = "echo", *, use_gpu: bool = False, **options: Any) -> None:
        self.tasks.register(name, use_gpu=use_gpu, **options)

    def deploy(self, name: str = "echo", *, owner: str | None = None, **serving: Any) -> None:
        operator = Caller(owner, frozenset({Scope.MODELS, Scope.OPERATE}))
        deploy_model(self.tasks.database, name, ServingSpec(port=8001, **serving), operator)

    def start(self, name: str = "echo", *, use_gpu: bool = False, consumer: str = "ada", **serving: Any) -> str:
        """Register and deploy a model that keeps one replica warm, and let it become ready; the replica's uid."""
        self.register(name, use_gpu=use_gpu)
        self.deploy(name, replicas_min=1, **serving)
        self.scale()
        held = self.claim(consumer, gpu=GPU if use_gpu else None)
        self.beat(held, consumer=consumer)
        return held.uid

    def scale(self) -> bool:
        return Scaler(self.tasks.database, yield_after=YIELD_AFTER, on_change=lambda: None).step()

    def try_claim(
        self,
        consumer: str = "ada",
        *,
        gpu: str | None = None,
        cpu: bool = True,
        uid: str | None = None,
        slots: int = 8,
    ) -> ReplicaAssignment | None:
        claim = ReplicaClaim(consumer=consumer, gpu_uuid=gpu, accepts_cpu_tasks=cpu, uid=uid, replica_slots=slots)
        return claim_replica(self.tasks.database, claim, HOSTING, owner=None)

    def claim(self, consumer: str = "ada", **options: Any) -> ReplicaAssignment:
        assignment = self.try_claim(consumer, **options)
        assert assignment is not None, "no replica could be claimed"
        return assignment

    def beat(
        self,
        held: ReplicaAssignment,
        *,
        ready: bool = True,
        consumer: str = "ada",
        address: str | None = ADDRESS,
        detail: str = "",
        silent: bool = False,
    ) -> ReplicaBeatReply:
        beat = ReplicaBeat(consumer=consumer, ready=ready, address=address, detail=detail, silent=silent)
        return beat_replica(self.tasks.database, held.uid, held.fence, beat)[0]

    def beat_uid(self, uid: str) -> ReplicaBeatReply:
        """A beat of whoever holds it."""
        row = self.row(uid)
        beat = ReplicaBeat(consumer=row.consumer or "", ready=True, address=ADDRESS)
        return beat_replica(self.tasks.database, uid, row.fence, beat)[0]

    def end(
        self,
        held: ReplicaAssignment,
        reason: ReplicaReason = ReplicaReason.CONTAINER_ENDED,
        detail: str = "it broke",
        exit_code: int | None = 3,
        summary: str = "",
    ) -> None:
        end = ReplicaEnd(consumer="ada", reason=reason, summary=summary, detail=detail, exit_code=exit_code)
        end_replica(self.tasks.database, held.uid, held.fence, end)

    def end_uid(self, uid: str, reason: ReplicaReason = ReplicaReason.SURPLUS) -> None:
        end = ReplicaEnd(consumer="ada", reason=reason)
        end_replica(self.tasks.database, uid, self.row(uid).fence, end)

    def report(
        self,
        name: str = "echo",
        *,
        in_flight: int = 0,
        queued: int = 0,
        idle_s: float | None = None,
        replicas: dict[str, int] | None = None,
        gateway: str = "g1",
    ) -> None:
        load = DeploymentLoad(in_flight=in_flight, queued=queued, idle_s=idle_s)
        note_report(
            self.tasks.database,
            GatewayReport(gateway=gateway, deployments={name: load}, replicas=replicas or {}),
        )

    def demand(self, name: str = "echo") -> None:
        note_demand(self.tasks.database, name)

    def show(self, name: str = "echo", caller: Caller = ANONYMOUS) -> DeploymentView:
        return show_deployment(self.tasks.database, name, caller)

    def live(self, name: str = "echo") -> list[ReplicaView]:
        return [replica for replica in self.show(name).replicas if replica.ended_at is None]

    def statuses(self, name: str = "echo") -> list[str]:
        return [str(replica.status) for replica in self.live(name)]

    def row(self, uid: str) -> ReplicaRow:
        with self.tasks.database.read() as session:
            return session.scalars(select(ReplicaRow).where(ReplicaRow.uid == uid)).one()

    def deployment(self) -> DeploymentRow:
        with self.tasks.database.read() as session:
            return session.scalars(select(DeploymentRow)).one()

    def shift_replica(self, uid: str, **moments: timedelta) -> None:
        """Move moments of a replica by these amounts."""
        self._shift(ReplicaRow, ReplicaRow.uid == uid, moments)

    def shift_deployment(self, **moments: timedelta) -> None:
        """Move moments of the only deployment by these amounts."""
        self._shift(DeploymentRow, DeploymentRow.id.is_not(None), moments)

    def age(self, by: timedelta) -> None:
        """Let time pass, as deployments, replicas, gateways, consumers and tasks see it; what has ended stays."""
        with self.tasks.database.write() as session:
            for table in (DeploymentRow, ReplicaRow, GatewayRow, ConsumerRow, TaskRow):
                for row in session.scalars(select(table)):
                    names = [column.name for column in Base.metadata.tables[table.__tablename__].columns]
                    live = getattr(row, "ended_at", None) is None
                    for name in names if live else ():
                        if isinstance(moment := getattr(row, name), datetime):
                            setattr(row, name, moment - by)

    def _shift(self, table: Any, condition: Any, moments: dict[str, timedelta]) -> None:
        with self.tasks.database.write() as session:
            row = session.scalars(select(table).where(condition)).one()
            for name, by in moments.items():
                setattr(row, name, getattr(row, name) + by)
