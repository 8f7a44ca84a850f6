"""The life of a consumer: register, adopt what an earlier process left, then hear a bell, claim, run, again."""

import logging
import random
from collections.abc import Callable

from contract.broker import CPU_QUEUE, GPU_QUEUE, Broker
from contract.errors import Conflict, InferenceError, ServiceUnavailable, StaleFence, TaskNotFound
from contract.private_client import REFUSALS
from contract.schemas import Assignment, ClaimRequest, ConsumerRegistration, Release
from job_consumer.engine import EngineUnavailable, RunKey, RunKind
from job_consumer.host import Host
from job_consumer.job import Job
from job_consumer.replica_host import ReplicaHost
from job_consumer.slots import SlotTaken
from job_consumer.warm_job import WarmJob

logger = logging.getLogger(__name__)

POLL_S = 15.0
"""A task whose bell was lost waits at most so long."""
_PAUSE_S = 2.0


class Worker:
    """One consumer. `run` blocks until `host.stopping` is set; wake the broker after setting it."""

    def __init__(self, host: Host, broker: Broker, *, accepts_cpu_tasks: bool) -> None:
        self._host = host
        self._broker = broker
        self._registration = ConsumerRegistration(
            consumer=host.consumer,
            gpu_uuid=host.gpu_uuid,
            accepts_cpu_tasks=accepts_cpu_tasks,
            replica_slots=host.replica_slots,
        )
        self._replica_host = ReplicaHost(host, broker, self._registration)
        # GPU work first: nobody else can do it.
        self._queues = ([GPU_QUEUE] if host.gpu_uuid else []) + ([CPU_QUEUE] if accepts_cpu_tasks else [])

    def run(self) -> None:
        """Register, adopt, then work until told to stop. Raises `SlotTaken`."""
        self._until_it_works(self.register)
        self._until_it_works(self._replica_host.adopt)
        self._replica_host.start()
        try:
            self._work()
        finally:
            self._replica_host.join()

    def _work(self) -> None:
        self._until_it_works(self.adopt)
        # What was queued while nobody listened has no bell any more.
        self._until_it_works(lambda: self.work_off(self._claim(None)))
        logger.info("consumer=%s waits for work on %s", self._host.consumer, ", ".join(self._queues))
        while not self._host.stopping.is_set():
            self._until_it_works(self.step)

    def register(self) -> None:
        """Raises `SlotTaken` where a consumer that lives has our GPU, on whichever host."""
        try:
            self._host.api.register(self._registration)
        except Conflict as error:
            raise SlotTaken(error.detail) from error

    def step(self) -> None:
        """Wait for one bell, at most `POLL_S`; then run tasks until there is none left to claim."""
        self._host.note_alive()
        delivery = self._broker.receive(self._queues, POLL_S)
        if self._host.stopping.is_set():
            if delivery is not None:
                delivery.requeue()
            return
        try:
            assignment = self._claim(delivery.uid if delivery else None)
        except InferenceError:
            if delivery is not None:
                delivery.requeue()
            raise
        # Settled before the run: the truth is the lease now, and a held message would time out at the broker.
        if delivery is not None:
            delivery.ack()
        self.work_off(assignment)

    def work_off(self, assignment: Assignment | None) -> None:
        """Run a task, and every further one that can be claimed at once."""
        while assignment is not None:
            self._job(assignment).run()
            if self._host.replica_network is not None:
                # A replica may wait for the GPU.
                self._broker.wake()
            assignment = None if self._host.stopping.is_set() else self._claim(None)

    def adopt(self) -> None:
        """Go on with every run of ours that still holds its task; remove what nobody owns."""
        runs = [key for key, _ in self._host.engine.find(self._host.consumer) if key.kind is RunKind.TASK]
        for key in runs:
            if (assignment := self._still_ours(key)) is not None:
                Job(self._host, assignment).resume()
            else:
                logger.warning("task=%s removing a run of fence %s that lost its task", key.uid, key.fence)
                self._host.engine.remove(key)
                self._host.work.remove_workspace(key)
            if self._host.stopping.is_set():
                return
        for key in set(self._host.work.workspaces()) - set(runs):
            self._give_back(key)

    def _job(self, assignment: Assignment) -> Job:
        if assignment.replica_uid is None:
            return Job(self._host, assignment)
        return WarmJob(self._host, assignment, assignment.replica_uid)

    def _claim(self, uid: str | None) -> Assignment | None:
        return self._host.api.claim(ClaimRequest(**self._registration.model_dump(), uid=uid))

    def _still_ours(self, key: RunKey) -> Assignment | None:
        try:
            return self._host.api.show(key.uid, key.fence)
        except (StaleFence, TaskNotFound):
            return None

    def _give_back(self, key: RunKey) -> None:
        """An attempt that ended before its container was made: nothing of it is worth keeping."""
        release = Release(consumer=self._host.consumer, detail="the consumer was restarted", blameless=True)
        try:
            self._host.api.release(key.uid, key.fence, release)
        except (StaleFence, TaskNotFound):
            logger.debug("task=%s fence %s was taken already", key.uid, key.fence)
        # Also what a run left whose task has ended: bind-backed volumes outlive a removed container.
        self._host.engine.remove(key)
        self._host.work.remove_workspace(key)

    def _until_it_works(self, step: Callable[[], None]) -> None:
        while not self._host.stopping.is_set():
            try:
                step()
            except SlotTaken:
                raise
            except REFUSALS as error:
                self._host.note_refused(error)
            except (ServiceUnavailable, EngineUnavailable) as error:
                logger.warning("consumer=%s cannot work right now: %s", self._host.consumer, error)
            except Exception:
                logger.exception("consumer=%s: a step failed; it is repeated", self._host.consumer)
            else:
                return
            # Jitter, so that consumers do not return in step after an outage.
            self._host.stopping.wait(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
