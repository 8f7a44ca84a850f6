"""Keeps the lease of what a consumer holds: a thread that beats, and what its replies said."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import Self

from contract.deployments import ReplicaAssignment, ReplicaBeat
from contract.errors import DeploymentNotFound, InferenceError, StaleFence, TaskNotFound
from contract.logging import SubjectLogger, log_replica, log_task
from contract.private_client import REFUSALS
from contract.schemas import Assignment, Heartbeat
from contract.statuses import Phase
from job_consumer.host import Host

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 6
REPLICA_BEAT_S = 2.0
"""Between two beats of a replica: people wait for it to be ready, or for its GPU."""

LOST = (StaleFence, TaskNotFound, DeploymentNotFound)
"""What the private API answers about something that this consumer no longer holds."""


class Heart(ABC):
    """Beats from entering the block until leaving it. Flags only ever go from False to True.

    A private API that cannot be reached changes nothing: only its word ends what is held.
    """

    def __init__(self, host: Host, log: SubjectLogger, interval_s: float) -> None:
        self._host = host
        self._interval_s = interval_s
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._log = log
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self._is_unanswered = False
        self.is_lost = False
        """It is no longer ours: stop and drop everything."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        self._wake.set()
        self._thread.join(10)

    def _run(self) -> None:
        # The claim itself counts as the first beat, so what is fresh need not begin with one.
        while not self._stopped.is_set() and not self.is_lost:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            if not self._stopped.is_set():
                self._beat()

    def _beat(self) -> None:
        try:
            self._send()
        except LOST as error:
            self._log.warning("it was lost: %s", error)
            self.is_lost = True
        except REFUSALS as error:
            self._host.note_refused(error)
        except InferenceError as error:
            if not self._is_unanswered:
                self._log.warning("heartbeats are not answered, the run goes on: %s", error)
            self._is_unanswered = True
        else:
            self._is_unanswered = False

    @abstractmethod
    def _send(self) -> None:
        """One beat, and what its reply says."""


class TaskHeart(Heart):
    """Of an attempt."""

    def __init__(self, host: Host, assignment: Assignment, phase: Phase) -> None:
        super().__init__(host, log_task(logger, assignment.uid), assignment.lease_s / BEATS_PER_LEASE)
        self._assignment = assignment
        self._phase = phase
        self.is_cancelled = False
        """The owner wants the task to end."""
        self.deadline: float | None = None
        """When the current phase must be over, by `time.monotonic`; None until a beat said it."""

    def enter(self, phase: Phase, *, at_once: bool = False) -> None:
        """Report another phase with the next beat, or with one right now; does not wait for it."""
        self._phase = phase
        self.deadline = None
        if at_once:
            self._wake.set()

    def _send(self) -> None:
        # Not for a replica: the consumer may be stuck while one is served.
        self._host.note_alive()
        phase = self._phase
        beat = Heartbeat(consumer=self._host.consumer, phase=phase)
        reply = self._host.api.beat(self._assignment.uid, self._assignment.fence, beat)
        self.is_cancelled = self.is_cancelled or reply.cancel
        if phase is self._phase:
            self.deadline = time.monotonic() + reply.seconds_left


class ReplicaHeart(Heart):
    """Of a hosted replica."""

    def __init__(self, host: Host, assignment: ReplicaAssignment) -> None:
        super().__init__(host, log_replica(logger, assignment.uid), REPLICA_BEAT_S)
        self._assignment = assignment
        self._address: str | None = None
        self.is_stopped = False
        """No gateway uses it any more: end it."""

    def note_ready(self, address: str) -> None:
        """Report it ready, at once."""
        self._address = address
        self._wake.set()

    def _send(self) -> None:
        address = self._address
        beat = ReplicaBeat(consumer=self._host.consumer, ready=address is not None, address=address)
        reply = self._host.api.beat_replica(self._assignment.uid, self._assignment.fence, beat)
        self.is_stopped = self.is_stopped or reply.stop
