"""An attempt that runs inside a replica of this consumer, in place of a container of its own."""

from contextlib import ExitStack

from contract.schemas import Assignment
from contract.statuses import Reason
from job_consumer.context import ConsumerContext
from job_consumer.engines import EngineUnavailable
from job_consumer.heartbeat import TaskHeartbeat
from job_consumer.output.failures import ModelFailed
from job_consumer.replicas.calls import CallFailed, CallFault, TaskCall, TaskReply
from job_consumer.replicas.ready import ReadyReplica, ReadyReplicas, ReplicaGone
from job_consumer.replicas.spec import INPUTS, OUTPUTS, PROGRESS
from job_consumer.tasks.attempt import Attempt
from job_consumer.tasks.progress import ProgressFile
from job_consumer.tasks.run_clock import RunClock, time_limit_failure
from job_consumer.workspace import PROGRESS_NAME, Workspace

_WATCH_S = 0.5
_GRACE_S = 5.0
"""How much later than the task's limit the call's own limit is, so that the task's is the one reported."""


class WarmAttempt(Attempt):
    """The replica is a bystander: if it stops being ready or dies, the task is not blamed but given back.

    A restart of this consumer gives the task back as well: the call ends with its connection.
    """

    def __init__(
        self, context: ConsumerContext, ready: ReadyReplicas, assignment: Assignment, replica_uid: str
    ) -> None:
        super().__init__(context, assignment)
        self._ready = ready
        self._replica_uid = replica_uid
        self._lent = ExitStack()
        self._replica: ReadyReplica | None = None

    def run(self) -> None:
        """As any attempt; the replica is not withdrawn meanwhile."""
        with self._lent:
            super().run()

    def _prepare(self, heartbeat: TaskHeartbeat) -> None:
        replica = self._borrow()
        replica.folder.open_task(self._key.name)
        self._lent.callback(replica.folder.close_task, self._key.name)
        root = self._context.work.open_workspace(self._key).root
        self._workspace = Workspace(
            root, replica.folder.inputs / self._key.name, replica.folder.outputs / self._key.name
        )
        self._fetch_input(heartbeat)

    def _start(self, heartbeat: TaskHeartbeat) -> None:
        """Starts nothing: the container runs already."""
        self._take_turn(heartbeat)
        self._context.stages.note_started(self._key)
        self._watch_disk()
        heartbeat.note_run(self._borrow().key)

    def _see_through(self, heartbeat: TaskHeartbeat) -> None:
        replica = self._borrow()
        limit_s = self._assignment.time_limit_s + _GRACE_S
        name = self._key.name
        progress = replica.folder.progress
        file = f"{PROGRESS}/{name}/{PROGRESS_NAME}" if progress.exists() else ""
        progress_file = ProgressFile(progress / name, heartbeat.note_progress)
        with TaskCall(
            replica.address, self._key.uid, f"{INPUTS}/{name}", f"{OUTPUTS}/{name}", file, time_limit_s=limit_s
        ) as call:
            progress_file.start()
            try:
                reply = self._await(call, heartbeat)
            except CallFailed as failed:
                raise self._verdict(failed) from failed
            finally:
                progress_file.stop()
        self._end_turn(heartbeat)
        if reply.exit_code != 0:
            detail = reply.detail or f"the replica ended the task with exit code {reply.exit_code}"
            raise ModelFailed(Reason.EXIT_CODE, detail, reply.exit_code)
        self._deliver(heartbeat)

    def _await(self, call: TaskCall, heartbeat: TaskHeartbeat) -> TaskReply:
        clock = RunClock(self._assignment.time_limit_s)
        while True:
            if (reply := call.wait(_WATCH_S)) is not None:
                return reply
            self._check_limits(heartbeat, clock)

    def _verdict(self, failed: CallFailed) -> Exception:
        match failed.fault:
            case CallFault.UNREACHABLE:
                return EngineUnavailable(f"the replica {self._replica_uid} did not finish the task: {failed.code}")
            case CallFault.TIME_LIMIT:
                return time_limit_failure(self._assignment.time_limit_s)
            case CallFault.REFUSED:
                # Treated as a program that ends with an uncaught error.
                return ModelFailed(Reason.EXIT_CODE, f"the replica answered inferenceserver.Tasks/Run with {failed}", 1)

    def _end_run(self, failed: ModelFailed) -> None:
        """Stops nothing: leaving the call cancels it."""
        raise failed

    def _free_files(self) -> None:
        super()._free_files()
        self._lent.close()

    def _borrow(self) -> ReadyReplica:
        if self._replica is None:
            try:
                self._replica = self._lent.enter_context(self._ready.borrow(self._replica_uid))
            except ReplicaGone as error:
                raise EngineUnavailable(str(error)) from error
        return self._replica
