"""One attempt of one task: prepare, run, deliver, and clean up whatever happens."""

import json
import logging
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar

from contract.errors import InferenceError, InvalidArchive, StaleFence, TaskNotFound, TooLarge
from contract.logging import log_task
from contract.schemas import Assignment, Failure, Release
from contract.statuses import Phase, Reason
from job_consumer.collect import measure_folder
from job_consumer.container_spec import decide_container, memory_limit
from job_consumer.engine import ContainerSpec, EngineUnavailable, ExitState, ImageNotFound, RunKey, RunVanished
from job_consumer.failures import ModelFailed
from job_consumer.heart import TaskHeart
from job_consumer.host import AttemptLost, ConsumerStopping, Host
from job_consumer.log_follower import LogFollower
from job_consumer.model_files import open_model
from job_consumer.transfer import fetch_archive, persist, upload_output
from job_consumer.unpack import unpack_archive
from job_consumer.workspace import ModelFolder

logger = logging.getLogger(__name__)

STOP_GRACE_S = 10.0
_WATCH_S = 1.0
_MEASURE_S = 5.0

_Answer = TypeVar("_Answer")


class Ending(Enum):
    """What is left to do once an attempt's work is over."""

    SETTLED = auto()
    LEFT_RUNNING = auto()


class Job:
    """An attempt this consumer holds. `run` for a fresh claim, `resume` for a run that was found."""

    def __init__(self, host: Host, assignment: Assignment) -> None:
        self._host = host
        self._assignment = assignment
        self._key = RunKey(assignment.uid, assignment.fence)
        self._workspace = host.work.workspace(self._key)
        self._log = log_task(logger, assignment.uid)
        self._is_engine_suspect = False

    def run(self) -> None:
        """Do the whole attempt. Raises nothing: how it ended is told to the private API."""
        self._conclude(Phase.PREPARING, self._run_fresh)

    def resume(self) -> None:
        """Go on with a run that an earlier process of this consumer started."""
        self._log.info("adopting the run of fence %s", self._key.fence)
        self._conclude(Phase.RUNNING, self._run_found)

    def _conclude(self, phase: Phase, work: Callable[[TaskHeart], None]) -> None:
        with TaskHeart(self._host, self._assignment, phase) as heart:
            if self._settle(heart, work) is Ending.SETTLED:
                self._clean_up()

    def _settle(self, heart: TaskHeart, work: Callable[[TaskHeart], None]) -> Ending:
        try:
            try:
                work(heart)
            except ModelFailed as failed:
                self._log.info("the model failed: %s", failed)
                failure = Failure(
                    consumer=self._host.consumer,
                    reason=failed.reason,
                    detail=failed.detail[:4096],
                    exit_code=failed.exit_code,
                )
                self._persist(heart, lambda: self._host.api.fail(self._key.uid, self._key.fence, failure))
            except (EngineUnavailable, RunVanished, OSError, InferenceError) as error:
                if isinstance(error, (StaleFence, TaskNotFound)):
                    raise
                self._log.warning("the attempt cannot go on here and is given back: %s", error)
                self._release(heart, f"{self._host.consumer}: {error}", blameless=False)
        except ConsumerStopping:
            if self._has_run():
                return Ending.LEFT_RUNNING
            self._release(heart, f"{self._host.consumer} was stopped", blameless=True, once=True)
        except (AttemptLost, StaleFence, TaskNotFound) as error:
            self._log.warning("the attempt is dropped: %s", error or "it is no longer ours")
        except Exception as error:
            self._log.exception("the attempt failed for a reason nobody foresaw; it is given back")
            self._release(heart, f"{self._host.consumer}: {type(error).__name__}", blameless=False, once=True)
        return Ending.SETTLED

    def _run_fresh(self, heart: TaskHeart) -> None:
        self._prepare(heart)
        self._start(heart)
        self._see_through(heart)

    def _run_found(self, heart: TaskHeart) -> None:
        self._recall_verdict()
        # Starts a run that was created only, and leaves one alone that runs or ended.
        self._start(heart)
        self._see_through(heart)

    def _prepare(self, heart: TaskHeart) -> None:
        self._host.work.open_workspace(self._key)
        self._fetch_input(heart)
        try:
            self._host.engine.ensure_image(self._assignment.container_tag, self._assignment.pull_policy)
        except ImageNotFound as error:
            raise ModelFailed(Reason.IMAGE_NOT_FOUND, str(error)) from error

    def _fetch_input(self, heart: TaskHeart) -> None:
        archive, limit = self._workspace.input_zip, self._assignment.max_unpacked_bytes
        try:
            fetch, sha256 = self._host.api.fetch_input, self._assignment.input.sha256
            self._persist(heart, lambda: fetch_archive(fetch, self._key, archive, sha256))
            unpack_archive(archive, self._workspace.input_dir, max_unpacked_bytes=limit)
        except InvalidArchive as error:
            raise ModelFailed(Reason.INPUT_REJECTED, f"the input zip was rejected: {error}") from error
        archive.unlink()
        self._check(heart)

    def _open_model(self, heart: TaskHeart) -> ModelFolder | None:
        try:
            return open_model(self._host, heart, self._key, self._assignment, self._host.api.fetch_model)
        except InvalidArchive as error:
            raise ModelFailed(Reason.INPUT_REJECTED, f"the model's zip was rejected: {error}") from error

    def _start(self, heart: TaskHeart) -> None:
        spec = self._decide(self._open_model(heart))
        self._check(heart)
        if spec.gpu_uuid is not None:
            # Beside a replica only if that one shares its GPU.
            self._host.gpu.enter(self._key, shares=True, check=lambda: self._check(heart))
        try:
            self._host.engine.start(spec)
        except ImageNotFound as error:
            raise ModelFailed(Reason.IMAGE_NOT_FOUND, str(error)) from error
        heart.enter(Phase.RUNNING, at_once=True)

    def _decide(self, model: ModelFolder | None) -> ContainerSpec:
        return decide_container(
            self._assignment,
            consumer=self._host.consumer,
            workspace=self._workspace,
            model=model,
            limits=self._host.limits,
            gpu_uuid=self._host.gpu_uuid,
            own_user=self._host.own_user,
        )

    def _see_through(self, heart: TaskHeart) -> None:
        follower = LogFollower(self._host.api, self._host.engine, self._key)
        follower.start()
        try:
            state = self._watch(heart)
            heart.enter(Phase.DELIVERING)
            follower.finish()
        finally:
            follower.abandon()
        self._judge(state)
        self._deliver(heart)

    def _watch(self, heart: TaskHeart) -> ExitState:
        clock = RunClock(self._assignment.time_limit_s)
        while True:
            try:
                state = self._host.engine.wait(self._key, _WATCH_S)
            except EngineUnavailable as error:
                self._log.warning("the engine does not answer, the run may go on: %s", error)
                self._is_engine_suspect = True
                self._host.stopping.wait(_WATCH_S)
                state = None
            if state is not None:
                return state
            self._check_limits(heart, clock)

    def _check(self, heart: TaskHeart) -> None:
        """Raises when the attempt must not go on."""
        if heart.is_lost:
            raise AttemptLost
        if heart.is_cancelled:
            self._end_run(ModelFailed(Reason.CANCELLED, "cancelled by its owner"))
        if self._host.stopping.is_set():
            raise ConsumerStopping

    def _check_limits(self, heart: TaskHeart, clock: "RunClock") -> None:
        """Raises when the run must not go on."""
        self._check(heart)
        if time.monotonic() > min(clock.deadline, heart.deadline or clock.deadline):
            self._end_run(self._time_limit_reached())
        if clock.is_time_to_measure():
            self._check_output_size()

    def _time_limit_reached(self) -> ModelFailed:
        limit = self._assignment.time_limit_s
        return ModelFailed(Reason.TIME_LIMIT, f"the run took longer than its limit of {limit} s")

    def _check_output_size(self) -> None:
        size, limit = measure_folder(self._workspace.output_dir), self._assignment.max_output_bytes
        if size > limit:
            self._end_run(ModelFailed(Reason.OUTPUT_TOO_LARGE, f"/output reached {size} bytes; {limit} are allowed"))

    def _end_run(self, failed: ModelFailed) -> None:
        self._workspace.verdict.write_text(json.dumps([failed.reason, failed.detail]))
        self._host.engine.stop(self._key, STOP_GRACE_S)
        raise failed

    def _recall_verdict(self) -> None:
        """Raises what an earlier process of this consumer ended the run for."""
        if self._workspace.verdict.exists():
            reason, detail = json.loads(self._workspace.verdict.read_text())
            self._end_run(ModelFailed(Reason(reason), detail))

    def _judge(self, state: ExitState) -> None:
        if state.out_of_memory:
            limit = memory_limit(self._assignment, self._host.limits)
            detail = f"the run needed more than its {limit} bytes of memory"
            raise ModelFailed(Reason.OUT_OF_MEMORY, detail, state.exit_code)
        if state.exit_code == 0:
            return
        if self._is_engine_suspect:
            raise EngineUnavailable(f"the engine failed during the run, which ended with {state.exit_code}")
        raise ModelFailed(Reason.EXIT_CODE, f"the container ended with exit code {state.exit_code}", state.exit_code)

    def _deliver(self, heart: TaskHeart) -> None:
        api, folder, limit = self._host.api, self._workspace.output_dir, self._assignment.max_output_bytes
        try:
            commit = self._persist(heart, lambda: upload_output(api, self._host.consumer, self._key, folder, limit))
        except TooLarge as error:
            raise ModelFailed(Reason.OUTPUT_TOO_LARGE, str(error), 0) from error
        self._persist(heart, lambda: api.commit(self._key.uid, self._key.fence, commit))

    def _persist(self, heart: TaskHeart, call: Callable[[], _Answer]) -> _Answer:
        return persist(self._host, heart, call)

    def _release(self, heart: TaskHeart, detail: str, *, blameless: bool, once: bool = False) -> None:
        release = Release(consumer=self._host.consumer, detail=detail[:4096], blameless=blameless)
        try:
            if once:
                self._host.api.release(self._key.uid, self._key.fence, release)
            else:
                self._persist(heart, lambda: self._host.api.release(self._key.uid, self._key.fence, release))
        except (InferenceError, ConsumerStopping, AttemptLost) as error:
            # Its lease ends soon, and the server requeues it then.
            self._log.warning("the task could not be given back: %s", error)

    def _has_run(self) -> bool:
        try:
            return any(key == self._key for key, _ in self._host.engine.find(self._host.consumer))
        except EngineUnavailable:
            return True

    def _clean_up(self) -> None:
        try:
            self._host.engine.remove(self._key)
            self._host.work.remove_workspace(self._key)
        except (EngineUnavailable, OSError):
            self._log.exception("something of the attempt is left; the next start of this consumer removes it")
        finally:
            self._host.gpu.leave(self._key)


class RunClock:
    """When a run must end, kept here as well as by the server, which may be out of reach; when to measure /output."""

    def __init__(self, limit_s: float) -> None:
        self.deadline = time.monotonic() + limit_s
        self._measured_at = time.monotonic()

    def is_time_to_measure(self) -> bool:
        """True every few seconds."""
        due = time.monotonic() - self._measured_at > _MEASURE_S
        if due:
            self._measured_at = time.monotonic()
        return due
