"""The replicas of one consumer that are ready, as tasks that run inside them see them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from job_consumer.engines import RunKey
from job_consumer.workspace import ReplicaFolder


class ReplicaGone(Exception):
    """The replica is not ready here any more: the task must run elsewhere."""


@dataclass(frozen=True)
class ReadyReplica:
    """Where a replica is reached, and where its tasks' files are."""

    key: RunKey
    address: str
    folder: ReplicaFolder


class ReadyReplicas:
    """Tasks borrow replicas; a replica that is lent is not withdrawn. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: dict[str, ReadyReplica] = {}
        self._lent: Counter[str] = Counter()

    def add(self, replica: ReadyReplica) -> None:
        """Offer a replica to tasks: it is ready."""
        with self._lock:
            self._ready[replica.key.uid] = replica

    def withdraw(self, uid: str) -> bool:
        """Stop lending a replica. Returns False, and changes nothing, while a task runs in it."""
        with self._lock:
            if self._lent[uid]:
                return False
            self._ready.pop(uid, None)
            return True

    def is_lent(self, uid: str) -> bool:
        """Whether a task runs in this replica now."""
        with self._lock:
            return bool(self._lent[uid])

    def drop(self, uid: str) -> None:
        """Forget a replica that has ended, whether or not it is lent."""
        with self._lock:
            self._ready.pop(uid, None)

    @contextmanager
    def borrow(self, uid: str) -> Iterator[ReadyReplica]:
        """Keep a replica from being withdrawn while the block is open. Raises `ReplicaGone`."""
        with self._lock:
            replica = self._ready.get(uid)
            if replica is None:
                raise ReplicaGone(f"the replica {uid} is not ready here any more")
            self._lent[uid] += 1
        try:
            yield replica
        finally:
            with self._lock:
                self._lent[uid] -= 1
