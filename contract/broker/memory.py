"""The broker inside one process: for standalone and for tests. What it holds dies with the process."""

from collections import defaultdict, deque
from collections.abc import Sequence
from functools import partial
from threading import Condition
from types import TracebackType
from typing import Self

from contract.broker import MAX_WAITING, BrokerUnavailable, Delivery


class InMemoryBroker:
    """Queues in memory, guarded by one condition that is notified of every change."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._queues: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=MAX_WAITING))
        self._waiting = 0
        self._wakes = 0
        self._wake_next = False
        self._closed = False

    def publish(self, queue: str, uid: str) -> None:
        """Never waits, and fails only after `close`."""
        with self._changed:
            self._raise_if_closed()
            self._queues[queue].append(uid)
            self._changed.notify_all()

    def receive(self, queues: Sequence[str], timeout_s: float) -> Delivery | None:
        """Returns None at once after `close`."""
        with self._changed:
            if self._closed or self._wake_next:
                self._wake_next = False
                return None
            wakes = self._wakes
            self._waiting += 1
            try:
                self._changed.wait_for(
                    lambda: self._closed or self._wakes != wakes or any(self._queues[queue] for queue in queues),
                    timeout_s,
                )
            finally:
                self._waiting -= 1
            if self._closed or self._wakes != wakes:
                return None
            return self._take(queues)

    def wake(self) -> None:
        """Wakes everybody who shares this object."""
        with self._changed:
            if self._waiting:
                self._wakes += 1
                self._changed.notify_all()
            else:
                self._wake_next = True

    def check(self) -> None:
        """Fails only after `close`."""
        with self._changed:
            self._raise_if_closed()

    def close(self) -> None:
        """Messages that were received stay with their holders."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, queues: Sequence[str]) -> Delivery | None:
        for queue in queues:
            if self._queues[queue]:
                uid = self._queues[queue].popleft()
                return Delivery(uid, partial(self._settle, queue, uid))
        return None

    def _settle(self, queue: str, uid: str, acked: bool) -> None:
        if acked:
            return
        with self._changed:
            self._queues[queue].appendleft(uid)
            self._changed.notify_all()

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise BrokerUnavailable("this broker was closed")
