"""One hosted replica: prepare, start, wait until it is ready, watch over it, end it and say why."""

import logging
import time
from collections.abc import Callable
from typing import NoReturn

from contract.deployments import ReplicaAssignment, ReplicaEnd, ReplicaReason
from contract.errors import InferenceError, InvalidArchive
from contract.logging import log_replica
from job_consumer.container_spec import memory_limit
from job_consumer.engine import EngineUnavailable, ExitState, ImageNotFound, RunVanished
from job_consumer.heart import LOST, ReplicaHeart
from job_consumer.host import AttemptLost, ConsumerStopping, Host
from job_consumer.hosted import ReadyReplica
from job_consumer.model_files import open_model
from job_consumer.replica_calls import why_not_ready
from job_consumer.replica_spec import decide_replica, model_names, replica_key
from job_consumer.transfer import persist

logger = logging.getLogger(__name__)

STOP_GRACE_S = 10.0
"""Between TERM and KILL: its calls have ended before."""
LOG_TAIL_BYTES = 2048
_WATCH_S = 1.0
_PROBE_PAUSE_S = 0.25
_PROBE_TIMEOUT_S = 2.0
_RETRY_S = 2.0


class ReplicaEnded(Exception):
    """The replica is to end, or has ended, for a reason that the private API should know."""

    def __init__(self, reason: ReplicaReason, detail: str = "", exit_code: int | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.exit_code = exit_code
        super().__init__(f"{reason}: {detail}")


class Replica:
    """A replica this consumer holds. `run` for a fresh claim, `resume` for a container that was found.

    A private API that is away changes nothing: the container serves on until the lease is known to be lost.
    """

    def __init__(self, host: Host, network: str, assignment: ReplicaAssignment) -> None:
        self._host = host
        self._network = network
        self._assignment = assignment
        self._key = replica_key(assignment)
        self._folder = host.work.replica(self._key)
        self._log = log_replica(logger, assignment.uid)

    def run(self) -> None:
        """Host it to its end. Raises nothing: how it ended is told to the private API."""
        self._log.info("hosting a replica of %s", self._assignment.human_readable_id)
        self._conclude(self._prepare)

    def resume(self) -> None:
        """Go on with a container that an earlier process of this consumer started."""
        self._log.info("adopting the container of fence %s", self._key.fence)
        self._conclude(lambda _heart: self._folder.close_tasks())

    def _conclude(self, prepare: Callable[[ReplicaHeart], object]) -> None:
        with ReplicaHeart(self._host, self._assignment) as heart:
            try:
                end = self._live(heart, prepare)
                self._host.replicas.drop(self._key.uid)
                # Told only once the container is gone: its GPU is given to others then.
                self._remove_container(heart)
                self._host.gpu.leave(self._key)
                if end is not None:
                    self._report(heart, end)
            except ConsumerStopping:
                self._leave()
                return
            except AttemptLost:
                self._log.warning("it is no longer ours: its container is removed")
                self._host.replicas.drop(self._key.uid)
                self._remove_at_once()
                self._host.gpu.leave(self._key)
        self._remove_files()

    def _live(self, heart: ReplicaHeart, prepare: Callable[[ReplicaHeart], object]) -> ReplicaEnd | None:
        """Until the replica must end; what to report. Raises `ConsumerStopping` and `AttemptLost`."""
        try:
            prepare(heart)
            self._start(heart)
            self._wait_ready(heart)
            self._watch(heart)
        except ReplicaEnded as ended:
            return self._end(ended.reason, ended.detail, ended.exit_code)
        except LOST as error:
            raise AttemptLost from error
        except (EngineUnavailable, RunVanished, OSError, InferenceError) as error:
            return self._end(ReplicaReason.RELEASED, f"{type(error).__name__}: {error}")
        except (ConsumerStopping, AttemptLost):
            raise
        except Exception as error:
            self._log.exception("it failed for a reason nobody foresaw")
            return self._end(ReplicaReason.RELEASED, type(error).__name__)

    def _prepare(self, heart: ReplicaHeart) -> None:
        self._host.work.open_replica(self._key)
        try:
            self._host.engine.ensure_image(self._assignment.container_tag, self._assignment.pull_policy)
        except ImageNotFound as error:
            raise ReplicaEnded(ReplicaReason.IMAGE_NOT_FOUND, str(error)) from error
        self._check(heart)

    def _start(self, heart: ReplicaHeart) -> None:
        try:
            fetch = self._host.api.fetch_replica_model
            model = open_model(self._host, heart, self._key, self._assignment, fetch)
        except InvalidArchive as error:
            raise ReplicaEnded(ReplicaReason.MODEL_REJECTED, f"the model's zip was rejected: {error}") from error
        self._check(heart)
        spec = decide_replica(
            self._assignment,
            network=self._network,
            publish_address=self._host.replica_publish_address,
            consumer=self._host.consumer,
            folder=self._folder,
            model=model,
            limits=self._host.limits,
            gpu_uuid=self._host.gpu_uuid,
            own_user=self._host.own_user,
        )
        if spec.gpu_uuid is not None:
            shares = self._assignment.serving.share_gpu
            self._host.gpu.enter(self._key, shares=shares, check=lambda: self._check(heart))
        try:
            self._host.engine.start(spec)
        except ImageNotFound as error:
            raise ReplicaEnded(ReplicaReason.IMAGE_NOT_FOUND, str(error)) from error

    def _wait_ready(self, heart: ReplicaHeart) -> None:
        limit_s = self._assignment.serving.start_timeout_s
        deadline = time.monotonic() + limit_s
        while True:
            address, answer = self._probe()
            if address is not None and answer is None:
                break
            self._raise_if_ended(_PROBE_PAUSE_S)
            self._check(heart)
            if time.monotonic() > deadline:
                detail = f"it was not ready within {limit_s:g} s: {answer}"
                raise ReplicaEnded(ReplicaReason.NOT_READY, self._with_log(detail))
        self._log.info("ready at %s", address)
        self._host.replicas.add(ReadyReplica(self._key.uid, address, self._folder))
        heart.note_ready(address)

    def _watch(self, heart: ReplicaHeart) -> NoReturn:
        while True:
            self._raise_if_ended(_WATCH_S)
            self._check(heart)

    def _probe(self) -> tuple[str | None, str | None]:
        """Where the container is reached, and why it is not ready yet."""
        serving = self._assignment.serving
        try:
            address = self._host.engine.address(self._key, serving.port)
        except EngineUnavailable as error:
            return None, str(error)
        if address is None:
            return None, "its container has no address"
        return address, why_not_ready(address, serving, model_names(self._assignment), _PROBE_TIMEOUT_S)

    def _raise_if_ended(self, timeout_s: float) -> None:
        """Wait for the container's end, at most so long."""
        try:
            state = self._host.engine.wait(self._key, timeout_s)
        except EngineUnavailable as error:
            self._log.warning("the engine does not answer, the container may go on: %s", error)
            self._host.stopping.wait(_WATCH_S)
            return
        if state is not None:
            raise ReplicaEnded(ReplicaReason.CONTAINER_ENDED, self._with_log(self._how(state)), state.exit_code)

    def _how(self, state: ExitState) -> str:
        if state.out_of_memory:
            limit = memory_limit(self._assignment, self._host.limits)
            return f"the container needed more than its {limit} bytes of memory (exit code {state.exit_code})"
        return f"the container ended with exit code {state.exit_code}"

    def _with_log(self, text: str) -> str:
        try:
            tail = self._host.engine.log_tail(self._key, LOG_TAIL_BYTES).decode(errors="replace").strip()
        except (EngineUnavailable, RunVanished) as error:
            tail = f"(its log cannot be read: {error})"
        return f"{text}; its log ends with:\n{tail}" if tail else f"{text}; it wrote no log"

    def _check(self, heart: ReplicaHeart) -> None:
        """Raises when the replica must not go on."""
        if heart.is_lost:
            raise AttemptLost
        # A task that runs inside may finish: it has a time limit of its own.
        if heart.is_stopped and self._host.replicas.withdraw(self._key.uid):
            raise ReplicaEnded(ReplicaReason.SURPLUS)
        if self._host.stopping.is_set():
            raise ConsumerStopping

    def _end(self, reason: ReplicaReason, detail: str, exit_code: int | None = None) -> ReplicaEnd:
        detail = detail.replace("\0", "\N{REPLACEMENT CHARACTER}")[:4096]
        self._log.info("ends: %s %s", reason, detail)
        return ReplicaEnd(consumer=self._host.consumer, reason=reason, detail=detail, exit_code=exit_code)

    def _report(self, heart: ReplicaHeart, end: ReplicaEnd) -> None:
        try:
            persist(self._host, heart, lambda: self._host.api.end_replica(self._key.uid, self._key.fence, end))
        except LOST as error:
            self._log.warning("its end was known already: %s", error)
        except InferenceError:
            self._log.exception("its end was not taken; its lease ends soon")

    def _remove_container(self, heart: ReplicaHeart) -> None:
        """Repeated until the engine did it. Raises `ConsumerStopping`, `AttemptLost`."""
        while True:
            try:
                self._host.engine.stop(self._key, STOP_GRACE_S)
                self._host.engine.remove(self._key)
            except EngineUnavailable as error:
                self._log.warning("its container cannot be removed yet: %s", error)
            else:
                return
            if self._host.stopping.wait(_RETRY_S):
                raise ConsumerStopping
            if heart.is_lost:
                raise AttemptLost

    def _remove_at_once(self) -> None:
        while not self._host.stopping.is_set():
            try:
                self._host.engine.remove(self._key)
            except EngineUnavailable as error:
                self._log.warning("its container cannot be removed yet: %s", error)
                self._host.stopping.wait(_RETRY_S)
            else:
                return

    def _leave(self) -> None:
        """This consumer stops: its next start adopts the container; without one the replica is given back."""
        try:
            if any(key == self._key for key, _ in self._host.engine.find(self._host.consumer)):
                return
            end = self._end(ReplicaReason.RELEASED, f"{self._host.consumer} was stopped")
            self._host.api.end_replica(self._key.uid, self._key.fence, end)
        except (EngineUnavailable, InferenceError) as error:
            self._log.warning("the replica could not be given back: %s", error)

    def _remove_files(self) -> None:
        try:
            self._host.work.remove_replica(self._key)
        except OSError:
            self._log.exception("files of it are left; the next start of this consumer removes them")
