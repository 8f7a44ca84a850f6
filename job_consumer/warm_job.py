"""An attempt that runs inside a replica of this consumer, in place of a container of its own."""

from contextlib import ExitStack

from contract.schemas import Assignment
from contract.statuses import Phase, Reason
from job_consumer.engine import EngineUnavailable
from job_consumer.failures import ModelFailed
from job_consumer.heart import TaskHeart
from job_consumer.host import Host
from job_consumer.hosted import ReadyReplica, ReplicaGone
from job_consumer.job import Job, RunClock
from job_consumer.replica_calls import CallFailed, CallFault, TaskCall, TaskReply
from job_consumer.replica_spec import INPUTS, OUTPUTS
from job_consumer.workspace import Workspace

_WATCH_S = 0.5
_GRACE_S = 5.0
"""The call's own limit lies so far beyond the task's: the task's is the one that is told."""


class WarmJob(Job):
    """One that is not ready any more, or dies meanwhile, says nothing about the task: it is given back, and runs again.

    So does a restart of this consumer: the call ends with its connection, and the next start gives the task back.
    """

    def __init__(self, host: Host, assignment: Assignment, replica_uid: str) -> None:
        super().__init__(host, assignment)
        self._replica_uid = replica_uid
        self._lent = ExitStack()
        self._replica: ReadyReplica | None = None

    def run(self) -> None:
        """The replica is not withdrawn meanwhile."""
        with self._lent:
            super().run()

    def _prepare(self, heart: TaskHeart) -> None:
        replica = self._borrow()
        replica.folder.open_task(self._key.name)
        self._lent.callback(replica.folder.close_task, self._key.name)
        root = self._host.work.open_workspace(self._key).root
        self._workspace = Workspace(
            root, replica.folder.inputs / self._key.name, replica.folder.outputs / self._key.name
        )
        self._fetch_input(heart)

    def _start(self, heart: TaskHeart) -> None:
        """Nothing to start: the container runs."""
        heart.enter(Phase.RUNNING, at_once=True)

    def _see_through(self, heart: TaskHeart) -> None:
        replica = self._borrow()
        limit_s = self._assignment.time_limit_s + _GRACE_S
        name = self._key.name
        with TaskCall(
            replica.address, self._key.uid, f"{INPUTS}/{name}", f"{OUTPUTS}/{name}", time_limit_s=limit_s
        ) as call:
            try:
                reply = self._await(call, heart)
            except CallFailed as failed:
                raise self._verdict(failed) from failed
        heart.enter(Phase.DELIVERING)
        if reply.exit_code != 0:
            detail = reply.detail or f"the replica ended the task with exit code {reply.exit_code}"
            raise ModelFailed(Reason.EXIT_CODE, detail, reply.exit_code)
        self._deliver(heart)

    def _await(self, call: TaskCall, heart: TaskHeart) -> TaskReply:
        clock = RunClock(self._assignment.time_limit_s)
        while True:
            if (reply := call.wait(_WATCH_S)) is not None:
                return reply
            self._check_limits(heart, clock)

    def _verdict(self, failed: CallFailed) -> Exception:
        match failed.fault:
            case CallFault.UNREACHABLE:
                return EngineUnavailable(f"the replica {self._replica_uid} did not finish the task: {failed}")
            case CallFault.TIME_LIMIT:
                return self._time_limit_reached()
            case CallFault.REFUSED:
                # As a program that ends with an error nobody caught.
                return ModelFailed(Reason.EXIT_CODE, f"the replica answered inferenceserver.Tasks/Run with {failed}", 1)

    def _end_run(self, failed: ModelFailed) -> None:
        """Leaving the call cancels it."""
        raise failed

    def _borrow(self) -> ReadyReplica:
        if self._replica is None:
            try:
                self._replica = self._lent.enter_context(self._host.replicas.borrow(self._replica_uid))
            except ReplicaGone as error:
                raise EngineUnavailable(str(error)) from error
        return self._replica
