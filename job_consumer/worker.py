"""The life of a registered consumer: adopt what an earlier process left, then claim and run on each bell."""

import itertools
import logging
from collections.abc import Callable

from contract.broker import Broker
from contract.claims import ClaimRequest, HeldAttempt
from contract.errors import StaleFence, TaskNotFound
from contract.schemas import Assignment, ConsumerRegistration, Release
from job_consumer.bells import claim_on_bell, task_queues, until_it_works
from job_consumer.context import ConsumerContext
from job_consumer.engines import ReplicaEngine, RunKey, RunKind
from job_consumer.failpoints import Failpoint
from job_consumer.reconcile import INTERVAL_S, Reconciler
from job_consumer.replicas.hosting_loop import HostingLoop
from job_consumer.replicas.ready import ReadyReplicas
from job_consumer.tasks.attempt import Attempt
from job_consumer.tasks.warm_attempt import WarmAttempt
from kit.failpoints import reach
from kit.loop import Loop

logger = logging.getLogger(__name__)

POLL_S = 15.0
"""A task whose bell was lost waits at most this long."""
_GPU_CHECK_S = 1.0


class Worker:
    """One consumer. `run` blocks until `context.stopping` is set; wake the broker after setting it."""

    def __init__(
        self,
        context: ConsumerContext,
        broker: Broker,
        registration: ConsumerRegistration,
        replica_engine: ReplicaEngine | None,
    ) -> None:
        """The consumer has registered. `replica_engine` is the context's engine if it hosts replicas, else None."""
        self._context = context
        self._broker = broker
        self._registration = registration
        self._ready = ReadyReplicas()
        self._reconciler = Reconciler(context)
        self._hosting = HostingLoop(context, broker, registration, self._ready, replica_engine)
        self._queues = task_queues(registration)
        self._found: list[tuple[RunKey, Assignment]] = []
        self._claims = itertools.count(1)

    def run(self) -> None:
        """Adopt, then work until told to stop."""
        self._until_it_works(self.take_stock)
        self._until_it_works(lambda: self._hosting.adopt(self._reconciler))
        # Only now: what is still ours is held.
        with Loop("reconcile", self._reconciler.step, interval_s=INTERVAL_S):
            self._hosting.start()
            try:
                self._work()
            finally:
                self._hosting.join()

    def _work(self) -> None:
        self.adopt()
        self._until_it_works(self.learn_host)
        # What was queued while no consumer listened has no bell any more.
        self._until_it_works(lambda: self.work_off(self._claim(None)))
        logger.info("consumer=%s waits for work on %s", self._context.consumer, ", ".join(self._queues))
        while not self._context.stopping.is_set():
            self._until_it_works(self.step)

    def learn_host(self) -> None:
        """Ask the engine for the host's name, which every claim from here on tells the private API."""
        host = self._context.engine.host_name()
        self._registration = self._registration.model_copy(update={"host": host})

    def step(self) -> None:
        """Wait for one bell, at most `POLL_S`; then run tasks until none can be claimed."""
        self._context.note_alive()
        if self._context.has_leftover_on_gpu:
            self._context.stopping.wait(_GPU_CHECK_S)
            return
        self.work_off(claim_on_bell(self._context, self._broker, self._queues, POLL_S, self._claim))

    def work_off(self, assignment: Assignment | None) -> None:
        """Run a task, and every further one that can be claimed at once."""
        while assignment is not None:
            self._attempt(assignment).run()
            if self._hosting.is_hosting:
                # A replica may wait for the GPU.
                self._broker.wake()
            assignment = None if self._context.stopping.is_set() else self._claim(None)

    def adopt(self) -> None:
        """Resume every run that `take_stock` found."""
        while self._found and not self._context.stopping.is_set():
            key, assignment = self._found.pop(0)
            Attempt(self._context, assignment, key).resume()

    def take_stock(self) -> None:
        """Find the runs of ours that still hold their task; give back what has none."""
        stock = self._reconciler.take_stock(RunKind.TASK, self._context.api.show)
        for key in stock.unstarted:
            self._give_back(key)
        self._found = stock.adoptable

    def _attempt(self, assignment: Assignment) -> Attempt:
        if assignment.replica_uid is None:
            return Attempt(self._context, assignment)
        return WarmAttempt(self._context, self._ready, assignment, assignment.replica_uid)

    def _claim(self, uid: str | None) -> Assignment | None:
        if self._context.has_leftover_on_gpu:
            return None
        if uid is not None:
            reach(Failpoint.CLAIM_HEARD)
        health = self._context.health.look()
        # All that this consumer has, and would adopt or give back at its next start, has a workspace.
        holds = [HeldAttempt(uid=key.uid, fence=key.fence) for key in self._context.work.workspaces()]
        told = self._context.describe(self._registration)
        claim = ClaimRequest(**told, uid=uid, number=next(self._claims), holds=holds, health=health)
        assignment = self._context.api.claim(claim)
        if assignment is not None:
            reach(Failpoint.CLAIM_GIVEN)
        return assignment

    def _give_back(self, key: RunKey) -> None:
        """Release a task whose attempt ended before its container was made. The reconciler removes what is left."""
        release = Release(consumer=self._context.consumer, detail="the consumer was restarted", blameless=True)
        try:
            self._context.api.release(key.uid, key.fence, release)
        except (StaleFence, TaskNotFound):
            logger.debug("task=%s fence %s was taken already", key.uid, key.fence)

    def _until_it_works(self, step: Callable[[], None]) -> None:
        until_it_works(self._context, "work", step)
