"""Hosts replicas beside the tasks, each in a thread: adopts what an earlier process left, then claims on each bell."""

import logging
import threading
import time
from collections.abc import Callable

from contract.broker import Broker
from contract.deployments import ReplicaClaim, ReplicaEnd, ReplicaReason
from contract.schemas import ConsumerRegistration
from job_consumer.bells import claim_on_bell, replica_queues, until_it_works
from job_consumer.context import ConsumerContext
from job_consumer.engines import EngineUnavailable, ReplicaEngine, RunKey, RunKind
from job_consumer.heartbeat import LOST
from job_consumer.reconcile import Reconciler
from job_consumer.replicas.ready import ReadyReplicas
from job_consumer.replicas.replica import Replica
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

POLL_S = 5.0
"""A replica whose bell was lost waits at most this long: people wait for it."""
_JOIN_S = 15.0
"""A thread that pulls an image cannot be interrupted; its replica is given back at the next start."""


class HostingLoop:
    """The replicas of one consumer. They outlive it: its next start adopts them."""

    def __init__(
        self,
        context: ConsumerContext,
        broker: Broker,
        registration: ConsumerRegistration,
        ready: ReadyReplicas,
        engine: ReplicaEngine | None,
    ) -> None:
        """`engine` is the context's engine if it can host replicas; with None this consumer hosts none."""
        self._context = context
        self._broker = broker
        self._registration = registration
        self._ready = ready
        self._engine = engine
        self._queues = replica_queues(registration)
        self._changed = threading.Condition()
        self._threads: set[SupervisedThread] = set()
        self._loop = SupervisedThread("replica-host", self._run, stopped=context.stopping)

    @property
    def is_hosting(self) -> bool:
        """Whether this consumer hosts replicas at all."""
        return self._engine is not None

    def adopt(self, reconciler: Reconciler) -> None:
        """Resume every container of ours that still holds its replica; give back what has none, or cannot be hosted."""
        stock = reconciler.take_stock(RunKind.REPLICA, self._context.api.show_replica)
        for key in stock.unstarted:
            self._give_back(key)
        for key, assignment in stock.adoptable:
            if self._engine is None:
                self._give_back(key)
            else:
                replica = Replica(self._context, self._engine, self._ready, assignment, key)
                self._start_thread(replica, replica.resume)

    def start(self) -> None:
        """Begin to claim, in a thread. Does nothing for a consumer that hosts no replicas."""
        if self.is_hosting:
            self._loop.start()

    def join(self) -> None:
        """Wait until every thread has let go of its container, once the consumer was told to stop."""
        # Only now: the worker may have used up an earlier wake.
        self._broker.wake()
        deadline = time.monotonic() + _JOIN_S
        self._loop.join(_JOIN_S)
        with self._changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))

    def step(self) -> None:
        """Wait for one bell, at most `POLL_S`; then claim replicas until none can be claimed, or no slot is free."""
        with self._changed:
            # A consumer without a free slot must leave the bell to others.
            if not self._changed.wait_for(self._has_room, POLL_S):
                return
        claim_on_bell(self._context, self._broker, self._queues, POLL_S, self.claim_all)

    def claim_all(self, uid: str | None = None) -> None:
        """Host every replica that can be claimed now, beginning with the named one."""
        while self._engine is not None and self._has_room() and not self._context.stopping.is_set():
            self._context.engine.check()
            claim = ReplicaClaim(**self._context.describe(self._registration), uid=uid)
            assignment = self._context.api.claim_replica(claim)
            if assignment is None:
                return
            replica = Replica(self._context, self._engine, self._ready, assignment)
            self._start_thread(replica, replica.run)
            uid = None

    def _has_room(self) -> bool:
        is_free = len(self._threads) < self._registration.replica_slots and not self._context.has_leftover_on_gpu
        return is_free or self._context.stopping.is_set()

    def _run(self) -> None:
        logger.info("consumer=%s waits for replicas on %s", self._context.consumer, ", ".join(self._queues))
        while not self._context.stopping.is_set():
            until_it_works(self._context, "host replicas", self.step)
        # The worker may have missed the wake that this thread took.
        self._broker.wake()

    def _start_thread(self, replica: Replica, work: Callable[[], None]) -> None:
        def end(last: Callable[[], None]) -> None:
            last()
            with self._changed:
                self._threads.discard(thread)
                self._changed.notify_all()
            # What it kept others from is free: a GPU, or its slot.
            self._broker.wake()

        thread = SupervisedThread(
            "replica",
            lambda: end(work),
            stopped=self._context.stopping,
            # A second run would host what the first may have given back.
            on_failure=lambda: end(replica.abandon),
        )
        with self._changed:
            self._threads.add(thread)
        thread.start()

    def _give_back(self, key: RunKey) -> None:
        """End a replica whose container was never made, or that this consumer does not host any more.

        The reconciler removes what is left of it.
        """
        try:
            # Before its end is reported, if the engine answers: its GPU is given to others then.
            self._context.engine.remove(key)
            self._context.gpu.leave(key)
        except EngineUnavailable as error:
            logger.warning("replica=%s its container cannot be removed; that is tried again: %s", key.uid, error)
        why = "the consumer was restarted"
        end = ReplicaEnd(consumer=self._context.consumer, reason=ReplicaReason.RELEASED, summary=why, detail=why)
        try:
            self._context.api.end_replica(key.uid, key.fence, end)
        except LOST:
            logger.debug("replica=%s fence %s ended already", key.uid, key.fence)
        self._context.held.drop(key)
