"""What a task's life should be, in memory: the state machine's oracle. It knows no SQL and no clock."""

from dataclasses import dataclass, field

from contract.statuses import HELD, TERMINAL, Phase, Reason, Status
from private_api.tasks.limits import MAX_CRASHES, MAX_INFRASTRUCTURE_FAILURES


@dataclass
class TaskModel:
    """One task. Every method is one thing that happens to it, and returns what the caller should be told."""

    use_gpu: bool
    key: str | None
    statuses: list[Status] = field(default_factory=lambda: [Status.QUEUED])
    """All it had, in order: what the recorded events must say."""
    reason: Reason | None = None
    fence: int = 0
    attempts: int = 0
    crashes: int = 0
    infrastructure_failures: int = 0
    is_cancelled: bool = False
    is_deleted: bool = False
    committed: tuple[int, str] | None = None
    """Fence and sha256 of the result."""
    holder: str | None = None
    """The consumer whose attempt has not ended, also while its lease has expired."""
    is_ahead: bool = False
    """Whether its holder prepares it while another task runs there, and has not begun it."""
    lost_by: set[str] = field(default_factory=set)
    """The consumers that fell silent with it, and lost it to another claim."""
    failed_by: set[str] = field(default_factory=set)
    """The consumers that gave it back because something failed."""

    @property
    def status(self) -> Status:
        return self.statuses[-1]

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_held(self) -> bool:
        return self.status in HELD

    def is_held_under(self, fence: int) -> bool:
        """Whether the holder of this fence may act: also one whose lease expired, while nobody else claimed."""
        return fence == self.fence and not self.is_terminal

    def may_be_taken_by(self, consumer: str) -> bool:
        """Whether it is prepared ahead at another consumer."""
        return self.is_ahead and self.status is Status.LEASED and self.holder != consumer and not self.is_cancelled

    def claim(self, consumer: str, *, ahead: bool = False) -> None:
        assert self.status is Status.QUEUED
        assert not self.is_cancelled, "a cancelled task was claimed"
        if self.holder is not None:
            self.lost_by.add(self.holder)
        self.holder, self.is_ahead = consumer, ahead
        self.fence += 1
        self.attempts += 1
        self._move(Status.LEASED)

    def give_back(self) -> None:
        """Its holder claims, and does not name it; or it was prepared ahead, and is taken over."""
        self._come_back()
        self.fence += 1
        self.holder = None
        if self.is_cancelled:
            self._end(Status.CANCELLED, Reason.CANCELLED)
        else:
            self._move(Status.QUEUED)

    def beat(self, phase: Phase) -> None:
        self._come_back()
        if phase is not Phase.PREPARING:
            self.is_ahead = False
            self._move(Status.RUNNING)
        elif self.status is Status.QUEUED:
            self._move(Status.LEASED)

    def commit(self, fence: int, sha256: str) -> Status:
        self._come_back()
        if self.is_cancelled:
            return self._end(Status.CANCELLED, Reason.CANCELLED)
        assert self.committed is None, "two commits were accepted"
        self.committed = (fence, sha256)
        return self._end(Status.FINISHED, None)

    def fail(self, reason: Reason) -> Status:
        self._come_back()
        if self.is_cancelled or reason is Reason.CANCELLED:
            return self._end(Status.CANCELLED, Reason.CANCELLED)
        return self._end(Status.FAILED, reason)

    def release(self, there: set[str], *, blameless: bool) -> Status:
        """`there` are the consumers that could run it now."""
        assert self.holder is not None
        self.fence += 1
        if not blameless:
            self.failed_by.add(self.holder)
        self.holder = None
        self.infrastructure_failures += not blameless
        if self.is_cancelled:
            return self._end(Status.CANCELLED, Reason.CANCELLED)
        if not blameless and self.infrastructure_failures >= MAX_INFRASTRUCTURE_FAILURES and not there - self.failed_by:
            return self._end(Status.FAILED, Reason.INFRASTRUCTURE)
        return self._move(Status.QUEUED)

    def cancel(self) -> None:
        if self.is_terminal:
            return
        self.is_cancelled = True
        if self.status is Status.LEASED and self.is_ahead:
            self.give_back()
        elif self.status is Status.QUEUED:
            self._end(Status.CANCELLED, Reason.CANCELLED)

    def delete(self) -> None:
        if not self.is_deleted:
            self.cancel()
            self.is_deleted = True

    def lose_lease(self, there: set[str]) -> None:
        """`there` are the consumers that could run it now."""
        assert self.holder is not None
        if self.is_ahead:
            self.give_back()
            return
        self.crashes += 1
        failed = {*self.lost_by, self.holder}
        if self.is_cancelled:
            self._end(Status.CANCELLED, Reason.CANCELLED)
        elif self.crashes >= MAX_CRASHES and (len(failed) >= MAX_CRASHES or not there - failed):
            self._end(Status.FAILED, Reason.CRASHED_REPEATEDLY)
        else:
            self._move(Status.QUEUED)

    def overstay(self) -> None:
        self.fence += 1
        self._end(Status.FAILED, Reason.TIME_LIMIT)

    def _come_back(self) -> None:
        self.crashes -= self.status is Status.QUEUED

    def _end(self, status: Status, reason: Reason | None) -> Status:
        self.reason = reason
        self.holder = None
        return self._move(status)

    def _move(self, status: Status) -> Status:
        if status is not self.status:
            assert not self.is_terminal, "a task that had ended moved"
            self.statuses.append(status)
        return status
