"""What every attempt does around its work: it holds its task by a heartbeat, and settles it however the work ends."""

import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar

from contract.errors import InferenceError, StaleFence, TaskNotFound
from contract.schemas import Assignment, Release
from contract.statuses import Phase
from job_consumer.context import AttemptLost, ConsumerContext, ConsumerStopping
from job_consumer.engines import EngineUnavailable, RunKey, RunVanished
from job_consumer.error_texts import operators_text
from job_consumer.heartbeat import TaskHeartbeat
from job_consumer.output.failures import ModelFailed
from job_consumer.reconcile import let_go
from job_consumer.tasks.verdicts import RunInterrupted, keep_verdict, kept_verdict, tell_failure
from job_consumer.transfer import DOUBT_S, retry_until_accepted
from kit.logging import log_task

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")


class Ending(Enum):
    """What is left to do once an attempt's work is over."""

    SETTLED = auto()
    LEFT_RUNNING = auto()


class HeldAttempt:
    """An attempt that this consumer holds. What it does is its subclass's matter."""

    def __init__(self, context: ConsumerContext, assignment: Assignment, key: RunKey) -> None:
        self._context = context
        self._assignment = assignment
        self._key = key
        self._is_ahead = assignment.is_ahead
        """Whether it is prepared ahead, and the private API has not let it begin."""
        self._workspace = context.work.workspace(key)
        self._log = log_task(logger, assignment.uid)

    @property
    def key(self) -> RunKey:
        """The name of its run."""
        return self._key

    def _conclude(self, phase: Phase, work: Callable[[TaskHeartbeat], None]) -> None:
        self._context.held.add(self._key)
        with TaskHeartbeat(self._context, self._assignment, phase) as heartbeat:
            # Settled also where settling itself fails: without a heartbeat the run must not outlive its lease.
            ending = Ending.SETTLED
            try:
                ending = self._settle(heartbeat, work)
            finally:
                if ending is Ending.SETTLED:
                    let_go(self._context, self._key)
                self._context.stages.leave(self._key)

    def _settle(self, heartbeat: TaskHeartbeat, work: Callable[[TaskHeartbeat], None]) -> Ending:
        try:
            try:
                work(heartbeat)
                self._context.health.note_worked()
            except ModelFailed as failed:
                if failed.exit_code is not None:
                    self._context.health.note_worked()
                self._log.info("the model failed: %s", failed.operators_text)
                failure = tell_failure(self._context.consumer, failed, heartbeat.image)
                self._free(failed)
                self._offer(heartbeat, lambda: self._context.api.fail(self._key.uid, self._key.fence, failure))
            except RunInterrupted as interrupted:
                self._log.warning("the attempt is given back: %s", interrupted)
                self._release(heartbeat, f"{self._context.consumer}: {interrupted}", blameless=interrupted.blameless)
            except (EngineUnavailable, RunVanished, OSError, InferenceError) as error:
                if isinstance(error, (StaleFence, TaskNotFound)):
                    raise
                said = operators_text(error)
                self._log.warning("the attempt cannot continue here and is given back: %s", said)
                if not isinstance(error, EngineUnavailable):
                    self._free()
                detail = error.detail if isinstance(error, EngineUnavailable) else said
                self._release(heartbeat, f"{self._context.consumer}: {detail}", blameless=False)
        except ConsumerStopping:
            if self._has_run() or kept_verdict(self._workspace) is not None:
                return Ending.LEFT_RUNNING
            self._release(heartbeat, f"{self._context.consumer} was stopped", blameless=True, once=True)
        except (AttemptLost, StaleFence, TaskNotFound) as error:
            # One that was prepared ahead goes to whoever can run it first.
            log = self._log.info if self._is_ahead else self._log.warning
            log("the attempt is dropped and its run removed: %s", error or "it is no longer ours")
        except Exception as error:
            self._log.exception("the attempt failed unexpectedly and is given back")
            self._release(heartbeat, f"{self._context.consumer}: {type(error).__name__}", blameless=False, once=True)
        return Ending.SETTLED

    def _release(self, heartbeat: TaskHeartbeat, detail: str, *, blameless: bool, once: bool = False) -> None:
        if not blameless:
            self._context.health.note_failed(self._key.uid, detail)
        release = Release(consumer=self._context.consumer, detail=detail[:4096], blameless=blameless)
        try:
            if once:
                self._context.api.release(self._key.uid, self._key.fence, release)
            else:
                self._retry(heartbeat, lambda: self._context.api.release(self._key.uid, self._key.fence, release))
        except (InferenceError, ConsumerStopping, AttemptLost) as error:
            # Its lease ends soon, and the private API requeues it then.
            self._log.warning("the task could not be given back; it is requeued when its lease ends: %s", error)

    def _has_run(self) -> bool:
        try:
            return any(key == self._key for key, _ in self._context.engine.find(self._context.consumer))
        except EngineUnavailable:
            return True

    def _free(self, failed: ModelFailed | None = None) -> None:
        """Give back what the attempt takes of the disk, before how it ended is told: storing that may need the space.

        A failure is written down, so that this consumer's next start tells it if this process does not.
        """
        if failed is not None:
            keep_verdict(self._workspace, failed)
        try:
            self._context.engine.remove(self._key)
            self._free_files()
        except (EngineUnavailable, OSError) as error:
            self._log.warning("the disk space of the attempt is not given back yet: %s", operators_text(error))
        if failed is not None:
            keep_verdict(self._workspace, failed)

    def _free_files(self) -> None:
        self._context.work.empty_workspace(self._key)

    def _retry(self, heartbeat: TaskHeartbeat, call: Callable[[], _Answer]) -> _Answer:
        return retry_until_accepted(self._context, heartbeat, call)

    def _offer(self, heartbeat: TaskHeartbeat, call: Callable[[], _Answer]) -> _Answer:
        return retry_until_accepted(self._context, heartbeat, call, doubt_s=DOUBT_S)
