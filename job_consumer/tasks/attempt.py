"""One attempt at one task: prepare, run, deliver, and clean up whatever happens."""

import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from typing import TypeVar

from contract.errors import InferenceError, InvalidArchive, StaleFence, TaskNotFound, TooLarge
from contract.schemas import Assignment, Release
from contract.statuses import Phase, Reason
from job_consumer.container_spec import decide_container
from job_consumer.context import AttemptLost, ConsumerContext, ConsumerStopping
from job_consumer.engine_watch import Complaint
from job_consumer.engines import EngineUnavailable, ExitState, ImageNotFound, RunKey, RunVanished
from job_consumer.error_texts import operators_text
from job_consumer.failpoints import Failpoint
from job_consumer.heartbeat import TaskHeartbeat
from job_consumer.image_cache import choose_image, open_image
from job_consumer.model_files import open_model
from job_consumer.output.failures import ModelFailed
from job_consumer.reconcile import let_go
from job_consumer.run_disk import DiskLimits, RunDisk
from job_consumer.tasks.log_follower import LogFollower
from job_consumer.tasks.run_clock import RunClock
from job_consumer.tasks.verdicts import RunInterrupted, judge_end, keep_verdict, kept_verdict, tell_failure
from job_consumer.transfer import DOUBT_S, fetch_archive, retry_until_accepted, unpack_fetched, upload_output
from job_consumer.workspace import ModelFolder
from kit.failpoints import reach
from kit.logging import log_task

logger = logging.getLogger(__name__)

STOP_GRACE_S = 10.0
_WATCH_S = 1.0

_Answer = TypeVar("_Answer")


class Ending(Enum):
    """What is left to do once an attempt's work is over."""

    SETTLED = auto()
    LEFT_RUNNING = auto()


class Attempt:
    """An attempt this consumer holds. `run` is for a fresh claim, `resume` for a run that was found."""

    def __init__(self, context: ConsumerContext, assignment: Assignment, found: RunKey | None = None) -> None:
        """`found` is the run to resume, which an earlier release may have named otherwise."""
        self._context = context
        self._assignment = assignment
        self._key = found or context.key(assignment)
        self._workspace = context.work.workspace(self._key)
        self._log = log_task(logger, assignment.uid)

    def run(self) -> None:
        """Do the whole attempt. How it ended is reported to the private API."""
        self._conclude(Phase.PREPARING, self._run_fresh)

    def resume(self) -> None:
        """Finish an attempt whose run an earlier process of this consumer started."""
        self._log.info("adopting the run of fence %s", self._key.fence)
        self._conclude(Phase.RUNNING, self._run_found)

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
            self._log.warning("the attempt is dropped and its run removed: %s", error or "it is no longer ours")
        except Exception as error:
            self._log.exception("the attempt failed unexpectedly and is given back")
            self._release(heartbeat, f"{self._context.consumer}: {type(error).__name__}", blameless=False, once=True)
        return Ending.SETTLED

    def _run_fresh(self, heartbeat: TaskHeartbeat) -> None:
        self._prepare(heartbeat)
        self._start(heartbeat)
        self._see_through(heartbeat)

    def _run_found(self, heartbeat: TaskHeartbeat) -> None:
        if (failed := kept_verdict(self._workspace)) is not None:
            # An earlier process of this consumer ended the run for it.
            self._end_run(failed)
        # Starts a run that was only created, and leaves alone one that runs or has ended.
        self._start(heartbeat)
        self._see_through(heartbeat)

    def _prepare(self, heartbeat: TaskHeartbeat) -> None:
        self._context.work.open_workspace(self._key)
        self._fetch_input(heartbeat)
        try:
            self._assignment = choose_image(self._context, self._assignment)
            image, policy = self._assignment.container_tag, self._assignment.pull_policy
            pull = partial(self._context.engine.ensure_image, image, policy, heartbeat.note_pull)
            ensure = partial(pull, has_run=self._assignment.has_run)
            open_image(self._context, self._key, self._assignment, ensure)
            heartbeat.note_pull(None)
        except ImageNotFound as error:
            raise ModelFailed(Reason.IMAGE_NOT_FOUND, error.detail, said=str(error)) from error

    def _fetch_input(self, heartbeat: TaskHeartbeat) -> None:
        archive, target = self._workspace.input_zip, self._workspace.input_dir
        try:
            fetch, sha256 = self._context.api.fetch_input, self._assignment.input.sha256
            self._retry(heartbeat, lambda: fetch_archive(fetch, self._key, archive, sha256))
            unpack_fetched(self._context, self._assignment, archive, target, check=lambda: self._check(heartbeat))
        except InvalidArchive as error:
            raise ModelFailed(Reason.INPUT_REJECTED, f"the input zip was rejected: {error}") from error
        archive.unlink()
        self._check(heartbeat)

    def _open_model(self, heartbeat: TaskHeartbeat) -> ModelFolder | None:
        try:
            return open_model(self._context, heartbeat, self._key, self._assignment, self._context.api.fetch_model)
        except InvalidArchive as error:
            raise ModelFailed(Reason.INPUT_REJECTED, f"the model's zip was rejected: {error}") from error

    def _start(self, heartbeat: TaskHeartbeat) -> None:
        model = self._open_model(heartbeat)
        spec = decide_container(self._key, self._assignment, self._context.sandbox, self._workspace, model)
        self._check(heartbeat)
        if spec.gpu_uuid is not None:
            # Beside a replica only if that replica shares its GPU.
            self._context.gpu.enter(self._key, shares=True, check=lambda: self._check(heartbeat))
        self._watch_disk()
        try:
            self._context.engine.start(spec)
        except ImageNotFound as error:
            raise ModelFailed(Reason.IMAGE_NOT_FOUND, error.detail, said=str(error)) from error
        reach(Failpoint.RUN_STARTED)
        heartbeat.note_run(self._key)

    def _see_through(self, heartbeat: TaskHeartbeat) -> None:
        told, engine = heartbeat.note_progress, self._context.engine
        follower = LogFollower(self._context.api, engine, self._key, self._workspace, told)
        follower.start()
        try:
            state = self._watch(heartbeat)
            reach(Failpoint.RUN_ENDED)
            heartbeat.enter(Phase.DELIVERING)
            follower.finish()
        finally:
            follower.abandon()
        self._deliver(heartbeat, self._judge(state, follower.tail))

    def _watch(self, heartbeat: TaskHeartbeat) -> ExitState:
        complaint = Complaint()
        clock = RunClock.open(self._workspace.clock, self._assignment.time_limit_s)
        while True:
            try:
                state = self._context.engine.wait(self._key, _WATCH_S)
                complaint.is_over()
            except EngineUnavailable as error:
                if complaint.is_due():
                    self._log.warning(
                        "the engine does not answer, so the run may still be running; it is asked again: %s", error
                    )
                self._context.stopping.wait(_WATCH_S)
                state = None
            if state is not None:
                return state
            self._check_limits(heartbeat, clock)

    def _check(self, heartbeat: TaskHeartbeat) -> None:
        """Raises when the attempt must not continue."""
        if heartbeat.is_lost:
            raise AttemptLost
        if heartbeat.is_cancelled:
            self._end_run(ModelFailed(Reason.CANCELLED, "cancelled by its owner"))
        if self._context.stopping.is_set():
            raise ConsumerStopping

    def _check_limits(self, heartbeat: TaskHeartbeat, clock: RunClock) -> None:
        """Raises when the run must not continue."""
        self._check(heartbeat)
        if (failed := clock.time_limit_reached() or self._disk.fault()) is not None:
            self._end_run(failed)

    def _end_run(self, failed: ModelFailed) -> None:
        keep_verdict(self._workspace, failed)
        try:
            self._context.engine.stop(self._key, STOP_GRACE_S)
        except EngineUnavailable as error:
            # The verdict stands, and the run is removed as soon as the engine answers.
            self._log.warning("the engine does not say that it stopped the run: %s", error)
        raise failed

    def _judge(self, state: ExitState, log_end: str) -> list[str]:
        try:
            return judge_end(state, log_end, self._assignment, self._context.sandbox.limits)
        except ModelFailed as failed:
            # Most programs just end where a disk is full.
            short = self._disk.shortage() if failed.reason is Reason.EXIT_CODE else None
            raise ModelFailed(short.reason, short.detail, state.exit_code) if short else failed from None

    def _deliver(self, heartbeat: TaskHeartbeat, warnings: Sequence[str] = ()) -> None:
        api, folder = self._context.api, self._workspace.output_dir
        image = heartbeat.image
        upload = partial(upload_output, self._context, self._key, folder, self._assignment, warnings, image=image)
        try:
            commit = self._offer(heartbeat, upload)
        except TooLarge as error:
            raise ModelFailed(Reason.OUTPUT_TOO_LARGE, str(error), 0) from error
        self._offer(heartbeat, lambda: api.commit(self._key.uid, self._key.fence, commit))
        reach(Failpoint.DELIVER_COMMITTED)

    def _retry(self, heartbeat: TaskHeartbeat, call: Callable[[], _Answer]) -> _Answer:
        return retry_until_accepted(self._context, heartbeat, call)

    def _offer(self, heartbeat: TaskHeartbeat, call: Callable[[], _Answer]) -> _Answer:
        return retry_until_accepted(self._context, heartbeat, call, doubt_s=DOUBT_S)

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

    def _watch_disk(self) -> None:
        limits = self._context.sandbox.limits
        disk_limits = DiskLimits(self._assignment.max_output_bytes, limits.scratch_bytes, limits.disk_reserve_bytes)
        output, progress = self._workspace.output_dir, self._workspace.progress_dir
        self._disk = RunDisk(self._context.engine, self._key, output, disk_limits, progress_dir=progress)
