"""One attempt at one task: prepare, run, deliver, and clean up whatever happens."""

from collections.abc import Sequence
from functools import partial

from contract.errors import InvalidArchive, TooLarge
from contract.schemas import Assignment
from contract.statuses import Phase, Reason, Status
from job_consumer.container_spec import decide_container
from job_consumer.context import AttemptLost, ConsumerContext
from job_consumer.engine_watch import Complaint
from job_consumer.engines import EngineUnavailable, ExitState, ImageNotFound, RunKey
from job_consumer.failpoints import Failpoint
from job_consumer.heartbeat import TaskHeartbeat
from job_consumer.image_cache import choose_image, open_image
from job_consumer.model_files import open_model
from job_consumer.output.failures import ModelFailed
from job_consumer.run_disk import DiskLimits, RunDisk
from job_consumer.stages import Stage
from job_consumer.tasks.log_follower import LogFollower
from job_consumer.tasks.run_clock import RunClock
from job_consumer.tasks.settling import HeldAttempt
from job_consumer.tasks.verdicts import judge_end, keep_verdict, kept_verdict
from job_consumer.transfer import check_held, fetch_archive, unpack_fetched, upload_output
from job_consumer.workspace import ModelFolder
from kit.failpoints import reach

STOP_GRACE_S = 10.0
_WATCH_S = 1.0
_LET_START_S = 2.0


class Attempt(HeldAttempt):
    """An attempt in a container of its own. `run` is for a fresh claim, `resume` for a run that was found."""

    def __init__(self, context: ConsumerContext, assignment: Assignment, found: RunKey | None = None) -> None:
        """`found` is the run to resume, which an earlier release may have named otherwise."""
        super().__init__(context, assignment, found or context.key(assignment))

    def run(self) -> None:
        """Do the whole attempt. How it ended is reported to the private API."""
        self._conclude(Phase.PREPARING, self._run_fresh)

    def resume(self) -> None:
        """Finish an attempt whose run an earlier process of this consumer started."""
        self._log.info("adopting the run of fence %s", self._key.fence)
        self._conclude(Phase.RUNNING, self._run_found)

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

    def _take_turn(self, heartbeat: TaskHeartbeat) -> None:
        """Wait for the run before this one. What was prepared ahead begins only if the private API still says so."""
        heartbeat.is_ready = self._is_ahead
        self._context.stages.move(self._key, Stage.RUNNING, lambda: self._check(heartbeat))
        heartbeat.is_ready = False
        if self._is_ahead:
            settled = self._retry(heartbeat, lambda: self._context.api.begin(self._key.uid, self._key.fence))
            if settled.status is not Status.LEASED:
                raise AttemptLost("it was prepared ahead, and something else goes first")
            self._is_ahead = False

    def _start(self, heartbeat: TaskHeartbeat) -> None:
        model = self._open_model(heartbeat)
        spec = decide_container(self._key, self._assignment, self._context.sandbox, self._workspace, model)
        self._take_turn(heartbeat)
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
        self._context.stages.note_started(self._key)
        heartbeat.note_run(self._key)

    def _see_through(self, heartbeat: TaskHeartbeat) -> None:
        told, engine = heartbeat.note_progress, self._context.engine
        follower = LogFollower(self._context.api, engine, self._key, self._workspace, told)
        follower.start()
        try:
            state = self._watch(heartbeat)
            reach(Failpoint.RUN_ENDED)
            self._end_turn(heartbeat)
            follower.finish()
        finally:
            follower.abandon()
        self._deliver(heartbeat, self._judge(state, follower.tail))

    def _end_turn(self, heartbeat: TaskHeartbeat) -> None:
        """The run has ended, so the next one may begin once this one's output is what the consumer delivers."""
        heartbeat.enter(Phase.DELIVERING)
        self._context.gpu.leave(self._key)
        self._context.stages.move(self._key, Stage.DELIVERING, lambda: check_held(self._context, heartbeat))
        # Delivering takes a core, and the next run needs one for a moment.
        self._context.stages.let_start(_LET_START_S)

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
        if heartbeat.is_cancelled and not heartbeat.is_lost:
            self._end_run(ModelFailed(Reason.CANCELLED, "cancelled by its owner"))
        check_held(self._context, heartbeat)

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

    def _watch_disk(self) -> None:
        limits = self._context.sandbox.limits
        disk_limits = DiskLimits(self._assignment.max_output_bytes, limits.scratch_bytes, limits.disk_reserve_bytes)
        output, progress = self._workspace.output_dir, self._workspace.progress_dir
        self._disk = RunDisk(self._context.engine, self._key, output, disk_limits, progress_dir=progress)
