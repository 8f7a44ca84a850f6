"""One hosted replica: prepare it, start it, wait until it is ready, watch it, end it and report why."""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from contract.deployments import ReplicaAssignment, ReplicaEnd, ReplicaReason
from contract.errors import InferenceError, InvalidArchive
from job_consumer.container_spec import limits_of_run
from job_consumer.context import AttemptLost, ConsumerContext, ConsumerStopping
from job_consumer.engine_watch import Complaint
from job_consumer.engines import (
    CannotGuard,
    EngineUnavailable,
    ImageNotFound,
    ReplicaEngine,
    RunKey,
    RunKind,
    RunVanished,
)
from job_consumer.error_texts import operators_text
from job_consumer.heartbeat import LOST, ReplicaHeartbeat
from job_consumer.hit_limits import explain_hits
from job_consumer.image_cache import choose_image, open_image
from job_consumer.model_files import open_model
from job_consumer.reconcile import let_go
from job_consumer.replicas.endings import ReplicaEnded, container_ended, read_log_end, with_log
from job_consumer.replicas.liveness import Liveness, Verdict
from job_consumer.replicas.probe import Probe
from job_consumer.replicas.ready import ReadyReplica, ReadyReplicas
from job_consumer.replicas.spec import GATEWAY, decide_replica
from job_consumer.run_disk import DiskFull, DiskLimits, RunDisk
from job_consumer.transfer import retry_until_accepted
from kit.logging import log_replica

logger = logging.getLogger(__name__)

STOP_GRACE_S = 10.0
"""Between TERM and KILL. The calls to it have ended by then."""
_TO_CALL = (GATEWAY, "GATEWAY_TOKEN", "STREAM_TOKEN_KEY")
_WATCH_S = 1.0
_PROBE_PAUSE_S = 0.25
_RETRY_S = 2.0


class Replica:
    """A replica this consumer holds. `run` is for a fresh claim, `resume` for a container that was found.

    A private API that is away changes nothing: the container keeps serving until the lease is known to be lost.
    """

    def __init__(
        self,
        context: ConsumerContext,
        engine: ReplicaEngine,
        ready: ReadyReplicas,
        assignment: ReplicaAssignment,
        found: RunKey | None = None,
    ) -> None:
        """`found` is the container to resume, which an earlier release may have named otherwise."""
        self._context = context
        self._engine = engine
        self._ready = ready
        self._assignment = assignment
        self._key = found or context.key(assignment, RunKind.REPLICA)
        self._folder = context.work.replica(self._key)
        self._limits = limits_of_run(assignment, context.sandbox.limits)
        self._probe = Probe(engine, self._key, assignment, context.sandbox)
        self._log = log_replica(logger, assignment.uid)
        self._complaint = Complaint()

    def run(self) -> None:
        """Host it until it ends. How it ended is reported to the private API."""
        self._log.info("hosting a replica of %s", self._assignment.human_readable_id)
        self._conclude(self._prepare)

    def resume(self) -> None:
        """Host a container that an earlier process of this consumer started, until it ends."""
        self._log.info("adopting the container of fence %s", self._key.fence)
        self._conclude(self._take_over)

    def abandon(self) -> None:
        """Remove what is left of it after `run` or `resume` failed: without a heartbeat its lease runs out."""
        self._ready.drop(self._key.uid)
        let_go(self._context, self._key)

    def _conclude(self, prepare: Callable[[ReplicaHeartbeat], object]) -> None:
        self._context.held.add(self._key)
        with ReplicaHeartbeat(self._context, self._assignment) as heartbeat:
            try:
                end = self._live(heartbeat, prepare)
                self._ready.drop(self._key.uid)
                # Reported only once the container is gone: its GPU is given to others then.
                self._remove_container(heartbeat)
                self._context.gpu.leave(self._key)
                if end is not None:
                    self._report(heartbeat, end)
            except ConsumerStopping:
                self._leave()
                return
            except AttemptLost:
                self._log.warning("it is no longer ours: its container is removed")
                self.abandon()
                return
        let_go(self._context, self._key)

    def _live(self, heartbeat: ReplicaHeartbeat, prepare: Callable[[ReplicaHeartbeat], object]) -> ReplicaEnd | None:
        """Host the replica until it must end; what to report. Raises `ConsumerStopping` and `AttemptLost`."""
        try:
            prepare(heartbeat)
            self._start(heartbeat)
            self._wait_ready(heartbeat)
            self._watch(heartbeat)
        except ReplicaEnded as ended:
            return self._end(ended)
        except LOST as error:
            raise AttemptLost from error
        except (EngineUnavailable, RunVanished, OSError, InferenceError) as error:
            told = error.detail if isinstance(error, EngineUnavailable) else operators_text(error)
            summary = f"{type(error).__name__}: {told}"
            return self._end(ReplicaEnded(ReplicaReason.RELEASED, summary, said=operators_text(error)))
        except (ConsumerStopping, AttemptLost):
            raise
        except Exception as error:
            self._log.exception("it failed unexpectedly and is given back")
            return self._end(ReplicaEnded(ReplicaReason.RELEASED, type(error).__name__))

    def _take_over(self, _heartbeat: ReplicaHeartbeat) -> None:
        """Close its tasks. A container that was told another gateway or token can call nobody: it is replaced."""
        self._folder.close_tasks()
        wanted, has = self._assignment.environment, self._engine.environment(self._key)
        if any(name in has and has[name] != wanted.get(name) for name in _TO_CALL):
            changed = "the gateway's address or the service token has changed since its container was started"
            raise ReplicaEnded(ReplicaReason.RELEASED, changed)

    def _prepare(self, heartbeat: ReplicaHeartbeat) -> None:
        self._context.work.open_replica(self._key)
        try:
            self._assignment = choose_image(self._context, self._assignment)
            image, policy = self._assignment.container_tag, self._assignment.pull_policy
            open_image(self._context, self._key, self._assignment, partial(self._engine.ensure_image, image, policy))
        except ImageNotFound as error:
            raise ReplicaEnded(ReplicaReason.IMAGE_NOT_FOUND, error.detail, said=str(error)) from error
        self._check(heartbeat)

    def _start(self, heartbeat: ReplicaHeartbeat) -> None:
        try:
            fetch = self._context.api.fetch_replica_model
            model = open_model(self._context, heartbeat, self._key, self._assignment, fetch)
        except InvalidArchive as error:
            summary = "the model's zip was rejected"
            raise ReplicaEnded(ReplicaReason.MODEL_REJECTED, summary, detail=f"{summary}: {error}") from error
        self._check(heartbeat)
        sandbox, is_guarded = self._context.sandbox, self._context.guarding.works
        spec = decide_replica(self._key, self._assignment, sandbox, self._folder, model, is_guarded=is_guarded)
        if spec.gpu_uuid is not None:
            shares = self._assignment.serving.share_gpu
            self._context.gpu.enter(self._key, shares=shares, check=lambda: self._check(heartbeat))
        try:
            self._engine.start(spec)
        except CannotGuard as error:
            self._context.guarding.note_failure(str(error))
            raise ReplicaEnded(ReplicaReason.RELEASED, error.detail, said=str(error)) from error
        except ImageNotFound as error:
            raise ReplicaEnded(ReplicaReason.IMAGE_NOT_FOUND, error.detail, said=str(error)) from error

    def _wait_ready(self, heartbeat: ReplicaHeartbeat) -> None:
        limit_s = self._assignment.serving.start_timeout_s
        deadline = time.monotonic() + limit_s
        while True:
            address, answer = self._probe.ask()
            if address is not None and answer is None:
                break
            heartbeat.note_not_ready(answer or "")
            self._raise_if_ended(_PROBE_PAUSE_S)
            self._check(heartbeat)
            if time.monotonic() > deadline:
                tail = read_log_end(self._engine, self._key)
                summary = f"it was not ready within {limit_s:g} s"
                detail = with_log(f"{summary}: {answer}{explain_hits(tail, self._limits)}", tail)
                raise ReplicaEnded(ReplicaReason.NOT_READY, summary, detail=detail)
        self._probe.check_wall(address)
        self._log.info("ready at %s", address)
        self._offer(address, heartbeat)

    def _watch(self, heartbeat: ReplicaHeartbeat) -> NoReturn:
        limits = self._context.sandbox.limits
        # What its tasks write is bounded task by task.
        disk_limits = DiskLimits(sys.maxsize, limits.scratch_bytes, limits.disk_reserve_bytes)
        liveness = Liveness(self._assignment.serving.liveness_timeout_s)
        disk = RunDisk(self._engine, self._key, self._folder.outputs, disk_limits, progress_dir=self._folder.progress)
        while True:
            self._raise_if_ended(_WATCH_S)
            self._check(heartbeat)
            self._look_alive(liveness, heartbeat)
            if not self._probe.has_network():
                raise ReplicaEnded(ReplicaReason.RELEASED, "the container that guards its network was ended")
            # Ending one that did not fill the disk would help nobody.
            with suppress(DiskFull):
                if (failed := disk.fault()) is not None:
                    raise ReplicaEnded(ReplicaReason.CONTAINER_ENDED, failed.detail)

    def _look_alive(self, liveness: Liveness, heartbeat: ReplicaHeartbeat) -> None:
        """Ask a replica that was ready again, if its deployment wants that. Raises `ReplicaEnded` if it is no use."""
        if not liveness.is_due(time.monotonic()):
            return
        address, heard = self._probe.ask()
        # A task has a time limit of its own, and of an engine that does not answer nothing is known.
        if address is None or self._ready.is_lent(self._key.uid):
            liveness.forgive(time.monotonic())
            return
        match liveness.judge(heard is None, time.monotonic(), heartbeat.in_flight):
            case Verdict.BACK:
                self._log.info("answers again at %s", address)
                self._offer(address, heartbeat)
            case Verdict.SILENT if self._ready.withdraw(self._key.uid):
                heartbeat.note_silent(heard or "")
            case Verdict.GONE:
                limit_s = self._assignment.serving.liveness_timeout_s
                summary = f"it was ready, and then not for more than {limit_s:g} s"
                detail = with_log(f"{summary}: {heard}", read_log_end(self._engine, self._key))
                raise ReplicaEnded(ReplicaReason.NOT_READY, summary, detail=detail)

    def _offer(self, address: str, heartbeat: ReplicaHeartbeat) -> None:
        self._ready.add(ReadyReplica(self._key, address, self._folder))
        heartbeat.note_ready(address)

    def _raise_if_ended(self, timeout_s: float) -> None:
        """Wait for the container's end, at most this long. Raises `ReplicaEnded` if it came."""
        try:
            state = self._engine.wait(self._key, timeout_s)
        except EngineUnavailable as error:
            if self._complaint.is_due():
                self._log.warning(
                    "the engine does not answer, so the container may still run; it is asked again: %s", error
                )
            self._context.stopping.wait(_WATCH_S)
            return
        self._complaint.is_over()
        if state is not None:
            raise container_ended(self._engine, self._key, state, self._limits)

    def _check(self, heartbeat: ReplicaHeartbeat) -> None:
        """Raises when the replica must not continue."""
        if heartbeat.is_lost:
            raise AttemptLost
        # A task that runs inside may finish: it has its own time limit.
        if heartbeat.is_stopped and self._ready.withdraw(self._key.uid):
            raise ReplicaEnded(ReplicaReason.SURPLUS)
        if self._context.stopping.is_set():
            raise ConsumerStopping

    def _end(self, ended: ReplicaEnded) -> ReplicaEnd:
        self._log.info("ends: %s %s", ended.reason, ended.said or ended.summary)
        return ended.told_by(self._context.consumer)

    def _report(self, heartbeat: ReplicaHeartbeat, end: ReplicaEnd) -> None:
        try:
            retry_until_accepted(
                self._context, heartbeat, lambda: self._context.api.end_replica(self._key.uid, self._key.fence, end)
            )
        except LOST as error:
            self._log.warning("the private API knew its end already: %s", error)
        except InferenceError:
            self._log.exception("the private API did not accept its end, and gives it up when its lease ends")

    def _remove_container(self, heartbeat: ReplicaHeartbeat) -> None:
        """Remove the container, repeated until it succeeds. Raises `ConsumerStopping`, `AttemptLost`."""
        while True:
            try:
                self._engine.stop(self._key, STOP_GRACE_S)
                self._engine.remove(self._key)
            except EngineUnavailable as error:
                self._log.warning("its container cannot be removed yet; that is tried again: %s", error)
            else:
                return
            if self._context.stopping.wait(_RETRY_S):
                raise ConsumerStopping
            if heartbeat.is_lost:
                raise AttemptLost

    def _leave(self) -> None:
        """Leave the container to this consumer's next start; give the replica back if it has none yet."""
        try:
            if any(key == self._key for key, _ in self._engine.find(self._context.consumer)):
                return
            end = self._end(ReplicaEnded(ReplicaReason.RELEASED, f"{self._context.consumer} was stopped"))
            self._context.api.end_replica(self._key.uid, self._key.fence, end)
        except (EngineUnavailable, InferenceError) as error:
            self._log.warning(
                "the replica could not be given back; the private API gives it up when its lease ends: %s", error
            )
