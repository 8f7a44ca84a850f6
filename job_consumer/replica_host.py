"""Hosts replicas beside the tasks: adopt what an earlier process left, hear a bell, claim; one thread for each."""

import logging
import random
import threading
import time
from collections.abc import Callable

from contract.broker import CPU_REPLICA_QUEUE, GPU_REPLICA_QUEUE, Broker
from contract.deployments import ReplicaAssignment, ReplicaClaim, ReplicaEnd, ReplicaReason
from contract.errors import InferenceError, ServiceUnavailable
from contract.private_client import REFUSALS
from contract.schemas import ConsumerRegistration
from job_consumer.engine import EngineUnavailable, RunKey, RunKind
from job_consumer.heart import LOST
from job_consumer.host import Host
from job_consumer.replica import Replica

logger = logging.getLogger(__name__)

POLL_S = 5.0
"""A replica whose bell was lost waits at most so long: people wait for it."""
_PAUSE_S = 2.0
_JOIN_S = 15.0
"""A thread that pulls an image cannot be interrupted; its replica is given back at the next start."""


class ReplicaHost:
    """The replicas of one consumer. They outlive it: its next start adopts them."""

    def __init__(self, host: Host, broker: Broker, registration: ConsumerRegistration) -> None:
        self._host = host
        self._broker = broker
        self._registration = registration
        self._queues = ([GPU_REPLICA_QUEUE] if host.gpu_uuid else []) + (
            [CPU_REPLICA_QUEUE] if registration.accepts_cpu_tasks else []
        )
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._loop = threading.Thread(target=self._run, name="replica-host", daemon=True)

    def adopt(self) -> None:
        """Go on with every container of ours that still holds its replica; remove what nobody owns."""
        found = [key for key, _ in self._host.engine.find(self._host.consumer) if key.kind is RunKind.REPLICA]
        for key in found:
            assignment = self._still_ours(key)
            if assignment is not None and self._host.replica_network is not None:
                self._go(Replica(self._host, self._host.replica_network, assignment).resume)
            else:
                logger.warning("replica=%s removing a container of fence %s that lost its replica", key.uid, key.fence)
                self._give_back(key)
        for key in set(self._host.work.replicas()) - set(found):
            self._give_back(key)

    def start(self) -> None:
        """Begin to claim, in a thread; nothing to do for a consumer that hosts none."""
        if self._host.replica_network is not None:
            self._loop.start()

    def join(self) -> None:
        """Wait until every thread let go of its container, once the consumer was told to stop."""
        # Only now: an earlier wake may have been somebody else's.
        self._broker.wake()
        deadline = time.monotonic() + _JOIN_S
        if self._loop.is_alive():
            self._loop.join(_JOIN_S)
        with self._changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))

    def step(self) -> None:
        """Wait for one bell, at most `POLL_S`; then claim replicas until there is none left, or no room."""
        with self._changed:
            # A bell that is heard without room would be lost on others.
            if not self._changed.wait_for(self._has_room, POLL_S):
                return
        delivery = self._broker.receive(self._queues, POLL_S)
        if self._host.stopping.is_set():
            if delivery is not None:
                delivery.requeue()
            return
        try:
            self.claim_all(delivery.uid if delivery else None)
        except InferenceError:
            if delivery is not None:
                delivery.requeue()
            raise
        if delivery is not None:
            delivery.ack()

    def claim_all(self, uid: str | None = None) -> None:
        """Host every replica that can be claimed now; the named one goes first."""
        network = self._host.replica_network
        while network is not None and self._has_room() and not self._host.stopping.is_set():
            claim = ReplicaClaim(**self._registration.model_dump(), uid=uid)
            assignment = self._host.api.claim_replica(claim)
            if assignment is None:
                return
            self._go(Replica(self._host, network, assignment).run)
            uid = None

    def _has_room(self) -> bool:
        return len(self._threads) < self._host.replica_slots or self._host.stopping.is_set()

    def _run(self) -> None:
        logger.info("consumer=%s waits for replicas on %s", self._host.consumer, ", ".join(self._queues))
        while not self._host.stopping.is_set():
            try:
                self.step()
            except REFUSALS as error:
                self._host.note_refused(error)
            except (ServiceUnavailable, EngineUnavailable) as error:
                logger.warning("consumer=%s cannot host replicas right now: %s", self._host.consumer, error)
            except Exception:
                logger.exception("consumer=%s: hosting replicas failed; it is tried again", self._host.consumer)
            else:
                continue
            self._host.stopping.wait(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        # The worker may have missed the wake that this thread heard.
        self._broker.wake()

    def _go(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception:
                logger.exception("consumer=%s: a replica's thread failed", self._host.consumer)
            finally:
                with self._changed:
                    self._threads.discard(thread)
                    self._changed.notify_all()
                # What it kept others from: a GPU, or its slot.
                self._broker.wake()

        thread = threading.Thread(target=run, name="replica", daemon=True)
        with self._changed:
            self._threads.add(thread)
        thread.start()

    def _still_ours(self, key: RunKey) -> ReplicaAssignment | None:
        try:
            return self._host.api.show_replica(key.uid, key.fence)
        except LOST:
            return None

    def _give_back(self, key: RunKey) -> None:
        """One that ended before its container was made, or that this consumer hosts no more."""
        self._host.engine.remove(key)
        end = ReplicaEnd(
            consumer=self._host.consumer, reason=ReplicaReason.RELEASED, detail="the consumer was restarted"
        )
        try:
            self._host.api.end_replica(key.uid, key.fence, end)
        except LOST:
            logger.debug("replica=%s fence %s ended already", key.uid, key.fence)
        self._host.work.remove_replica(key)
