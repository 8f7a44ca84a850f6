"""Keeps the lease of what a consumer holds: a thread that beats, and what the replies said."""

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

from contract.deployments import ReplicaAssignment, ReplicaBeat
from contract.errors import DeploymentNotFound, InferenceError, StaleFence, TaskNotFound
from contract.heartbeats import Heartbeat, Progress
from contract.private_client import ACCESS_ERRORS
from contract.schemas import Assignment
from contract.statuses import Phase
from job_consumer.cancel_watch import CancelWatch
from job_consumer.context import ConsumerContext
from job_consumer.engines import EngineUnavailable, RunKey, RunVanished
from kit.logging import SubjectLogger, log_replica, log_task
from kit.threads import SupervisedThread

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 6
REPLICA_BEAT_S = 2.0
"""Between two beats of a replica: people wait for it to be ready, or for its GPU."""
PULL_BEAT_S = 2.0
"""At least between two beats that are made because more of an image was pulled."""
PROGRESS_BEAT_S = 5.0
"""At least between two beats that are made because a run said how far it is."""
_RETRY_S = 1.0

LOST = (StaleFence, TaskNotFound, DeploymentNotFound)
"""What the private API answers about something that this consumer no longer holds."""


class LeaseHeartbeat(ABC):
    """Beats from entering the block until leaving it. Flags only ever go from False to True.

    A private API that cannot be reached changes nothing: only its answer ends what is held. Where this process itself
    fails to beat for as long as the lease lasts, what it holds counts as lost: another consumer may have it by then.
    """

    def __init__(self, context: ConsumerContext, log: SubjectLogger, *, interval_s: float, lease_s: float) -> None:
        self._context = context
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._log = log
        self._thread = SupervisedThread(
            "heartbeat", self._run, pause_s=min(_RETRY_S, interval_s), stopped=self._stopped
        )
        self._is_unanswered = False
        self._has_failed = False
        """Whether the latest beat raised an unexpected error; also True while a beat is being made."""
        self._beaten_at = time.monotonic()
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
        """Beat until stopped; the thread calls this again after each beat that raised an unexpected error."""
        # Judged before the wait, which would let the lease run out.
        if self._has_failed and time.monotonic() + self._interval_s > self._beaten_at + self._lease_s:
            self._log.error(
                "no heartbeat could be made for %g s, which is the lease: it counts as lost and is ended here; "
                "the tracebacks above say what failed",
                self._lease_s,
            )
            self.is_lost = True
        # The claim itself counts as the first beat, so a fresh attempt need not begin with one.
        while not self._stopped.is_set() and not self.is_lost:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            if not self._stopped.is_set():
                self._has_failed = True
                self._beat()
                self._has_failed = False
                self._beaten_at = time.monotonic()

    def _beat(self) -> None:
        try:
            self._send()
        except LOST as error:
            self._log.warning("the private API gave it to another consumer, or ended it: %s", error)
            self.is_lost = True
        except ACCESS_ERRORS as error:
            self._context.note_refused(error)
        except InferenceError as error:
            if not self._is_unanswered:
                self._log.warning("heartbeats are not answered; the run continues, and they are repeated: %s", error)
            self._is_unanswered = True
        else:
            self._is_unanswered = False

    @abstractmethod
    def _send(self) -> None:
        """Make one beat and note what its reply says."""


class TaskHeartbeat(LeaseHeartbeat):
    """The heartbeat of an attempt at a task."""

    def __init__(self, context: ConsumerContext, assignment: Assignment, phase: Phase) -> None:
        super().__init__(
            context,
            log_task(logger, assignment.uid),
            interval_s=assignment.lease_s / BEATS_PER_LEASE,
            lease_s=assignment.lease_s,
        )
        self._assignment = assignment
        self._phase = phase
        self._pull_percent: int | None = None
        self._pull_told_at = time.monotonic()
        self._progress: Progress | None = None
        self._progress_told_at = -math.inf
        self._run_of: RunKey | None = None
        self._image: str | None = None
        self.is_ready = False
        """All of an attempt that is prepared ahead is there."""
        self.is_cancelled = False
        """The owner wants the task to end."""
        self._cancel_watch = CancelWatch(context, assignment.uid, assignment.fence, self._note_cancel)

    def __enter__(self) -> Self:
        self._cancel_watch.__enter__()
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        self._cancel_watch.__exit__(*exc)
        super().__exit__(*exc)

    def _note_cancel(self) -> None:
        self.is_cancelled = True

    def enter(self, phase: Phase, *, at_once: bool = False) -> None:
        """Report another phase with the next beat, or with one right now; does not wait for it."""
        self._phase = phase
        self._pull_percent = None
        if at_once:
            self._wake.set()

    @property
    def image(self) -> str | None:
        """Whose container runs. The engine is asked once, by the first who wants to know after the start."""
        if self._image is None and self._run_of is not None:
            # It only tells: an engine that does not answer is met again, where it matters.
            with suppress(EngineUnavailable, RunVanished):
                self._image = self._context.engine.ran_image(self._run_of)
        return self._image

    def note_run(self, run: RunKey) -> None:
        """Report that the run is going, and of which image, with a beat right now; does not wait for it."""
        self._run_of = run
        self.enter(Phase.RUNNING, at_once=True)

    def note_pull(self, percent: int | None) -> None:
        """Report how much of the image was pulled, None once it is here: with a beat of its own, at most one in 2 s."""
        is_news, self._pull_percent = percent != self._pull_percent, percent
        if is_news and percent is not None and time.monotonic() - self._pull_told_at >= PULL_BEAT_S:
            self._pull_told_at = time.monotonic()
            self._wake.set()

    def note_progress(self, progress: Progress) -> None:
        """Report how far the run says it is: with the next beat, or with one of its own, at most one in 5 s."""
        is_news, self._progress = progress != self._progress, progress
        if is_news and time.monotonic() - self._progress_told_at >= PROGRESS_BEAT_S:
            self._progress_told_at = time.monotonic()
            self._wake.set()

    def _send(self) -> None:
        # Not done for a replica: the consumer may be stuck while a replica is served.
        self._context.note_alive()
        beat = Heartbeat(
            consumer=self._context.consumer,
            phase=self._phase,
            pull_percent=self._pull_percent,
            progress=self._progress,
            image=self.image,
            is_ready=self.is_ready,
        )
        reply = self._context.api.beat(self._assignment.uid, self._assignment.fence, beat)
        self.is_cancelled = self.is_cancelled or reply.cancel


class ReplicaHeartbeat(LeaseHeartbeat):
    """The heartbeat of a hosted replica."""

    def __init__(self, context: ConsumerContext, assignment: ReplicaAssignment) -> None:
        super().__init__(
            context, log_replica(logger, assignment.uid), interval_s=REPLICA_BEAT_S, lease_s=assignment.lease_s
        )
        self._assignment = assignment
        self._address: str | None = None
        self._heard = ""
        self._is_silent = False
        self.in_flight: int | None = None
        """Of a silent replica: the calls open on it; None until the private API has said so."""
        self.is_stopped = False
        """No gateway uses it any more: end it."""

    def note_ready(self, address: str) -> None:
        """Report the replica ready, at once."""
        self._heard, self._address, self._is_silent, self.in_flight = "", address, False, None
        self._wake.set()

    def note_not_ready(self, heard: str) -> None:
        """Report with the next beat what the probe of a replica that is not ready heard."""
        self._heard = heard

    def note_silent(self, heard: str) -> None:
        """Report that a replica that was ready is not any more, at once."""
        if not self._is_silent:
            self._address, self._is_silent = None, True
            self._wake.set()
        self._heard = heard

    def _send(self) -> None:
        address, heard, silent = self._address, self._heard, self._is_silent
        beat = ReplicaBeat(
            consumer=self._context.consumer, ready=address is not None, address=address, silent=silent, detail=heard
        )
        reply = self._context.api.beat_replica(self._assignment.uid, self._assignment.fence, beat)
        self.is_stopped = self.is_stopped or reply.stop
        self.in_flight = reply.in_flight if silent and self._is_silent else None
