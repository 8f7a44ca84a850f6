"""The life of a registered consumer: adopt what an earlier process left, then claim and run on each bell."""

import itertools
import logging
from collections.abc import Callable
from functools import partial

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
from job_consumer.stages import Stage
from job_consumer.tasks.attempt import Attempt
from job_consumer.tasks.warm_attempt import WarmAttempt
from kit.failpoints import reach
from kit.loop import Loop
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

POLL_S = 15.0
"""A task whose bell was lost waits at most this long."""
_GPU_CHECK_S = 1.0
_AHEAD_S = 0.1
"""How long a run goes on before its consumer asks for a task to prepare: a shorter one hides no preparation.

If it gets none, it asks again after twice as long, and so on up to `POLL_S`.
"""
_LOOK_S = 1.0


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
        self._attempts: list[SupervisedThread] = []
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
                for thread in self._attempts:
                    thread.join()

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
        """Wait for one bell, at most `POLL_S`, unless a task runs; then run tasks until none can be claimed."""
        self._context.note_alive()
        if self._context.has_leftover_on_gpu:
            self._context.stopping.wait(_GPU_CHECK_S)
            return
        # A bell that rings for whoever is free is not for a consumer that runs a task.
        is_idle = not any(map(self._context.stages.has, (Stage.PREPARING, Stage.RUNNING)))
        hear = partial(claim_on_bell, self._context, self._broker, self._queues, POLL_S, self._claim)
        self.work_off(hear() if is_idle else self._claim_next())

    def work_off(self, assignment: Assignment | None) -> None:
        """Begin a task, and every further one that can be claimed before its run has ended."""
        while assignment is not None:
            attempt = self._attempt(assignment)
            self._begin(attempt, attempt.run)
            assignment = self._claim_next()

    def adopt(self) -> None:
        """Resume every run that `take_stock` found, those that have ended first: they wait for nothing."""
        while self._found and not self._context.stopping.is_set():
            key, assignment = self._found.pop(0)
            attempt = Attempt(self._context, assignment, key)
            self._begin(attempt, attempt.resume)
            self._wait_while(Stage.PREPARING)

    def _begin(self, attempt: Attempt, work: Callable[[], None]) -> None:
        self._context.stages.enter(attempt.key)

        def follow_through() -> None:
            work()
            # What was queued meanwhile and rang no bell is claimed now, and a replica may wait for the GPU.
            self._broker.wake()

        leave = partial(self._context.stages.leave, attempt.key)
        thread = SupervisedThread("attempt", follow_through, stopped=self._context.stopping, on_failure=leave)
        self._attempts = [*(each for each in self._attempts if each.is_alive), thread]
        thread.start()

    def _claim_next(self) -> Assignment | None:
        """A task to prepare while one runs; None once no run is left, when bells are heard again."""
        pause_s = _AHEAD_S
        while self._wait_while(Stage.PREPARING) and self._context.stages.has(Stage.RUNNING):
            # A start takes a core, and so does a claim.
            self._context.stages.let_start(_LOOK_S)
            self._context.stages.wait_while(Stage.RUNNING, pause_s)
            pause_s = min(2 * pause_s, POLL_S)
            if self._context.stages.has(Stage.RUNNING) and (assignment := self._claim(None, ahead=True)) is not None:
                return assignment
        return None

    def _wait_while(self, stage: Stage) -> bool:
        """Wait until no attempt is in the stage; False once the consumer is to stop."""
        while self._context.stages.has(stage) and not self._context.stopping.is_set():
            self._context.note_alive()
            self._context.stages.wait_while(stage, _LOOK_S)
        return not self._context.stopping.is_set()

    def take_stock(self) -> None:
        """Find the runs of ours that still hold their task; give back what has none."""
        stock = self._reconciler.take_stock(RunKind.TASK, self._context.api.show)
        for key in stock.unstarted:
            self._give_back(key, "the consumer was restarted")
        self._found = stock.adoptable

    def _attempt(self, assignment: Assignment) -> Attempt:
        if assignment.replica_uid is None:
            return Attempt(self._context, assignment)
        return WarmAttempt(self._context, self._ready, assignment, assignment.replica_uid)

    def _claim(self, uid: str | None, *, ahead: bool = False) -> Assignment | None:
        if self._context.has_leftover_on_gpu:
            return None
        if uid is not None:
            reach(Failpoint.CLAIM_HEARD)
        health = self._context.health.look(beside_run=ahead)
        if ahead and health.trouble is not None:
            return None
        # All that this consumer has, and would adopt or give back at its next start, has a workspace.
        over = {(key.uid, key.fence) for key in self._context.stages.delivering()}
        folders = [(key.uid, key.fence) for key in self._context.work.workspaces()]
        holds = [HeldAttempt(uid=uid, fence=fence, is_delivering=(uid, fence) in over) for uid, fence in folders]
        told = self._context.describe(self._registration)
        claim = ClaimRequest(**told, uid=uid, number=next(self._claims), holds=holds, health=health, ahead=ahead)
        assignment = self._context.api.claim(claim)
        if assignment is None:
            return None
        reach(Failpoint.CLAIM_GIVEN)
        if ahead and not assignment.is_ahead:
            # A private API of the release before does not know what may be taken over.
            self._give_back(self._context.key(assignment), "its consumer runs another task")
            return None
        return assignment

    def _give_back(self, key: RunKey, why: str) -> None:
        """Release a task whose attempt ended before its container was made. The reconciler removes what is left."""
        release = Release(consumer=self._context.consumer, detail=why, blameless=True)
        try:
            self._context.api.release(key.uid, key.fence, release)
        except (StaleFence, TaskNotFound):
            logger.debug("task=%s fence %s was taken already", key.uid, key.fence)

    def _until_it_works(self, step: Callable[[], None]) -> None:
        until_it_works(self._context, "work", step)
