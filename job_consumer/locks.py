"""One consumer per name, and per GPU, on a host: each holds a lock file in the work directory while it lives.

Consumers of one host share that directory, also as containers. The kernel frees the locks of a consumer that dies.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path


class LockTaken(Exception):
    """Another consumer runs under this name, or on this GPU. The text says which and what to do."""


@contextmanager
def hold_locks(work_dir: Path, consumer: str, gpu_uuid: str | None) -> Iterator[None]:
    """Keep every other consumer of this host from the name and the GPU while the block is open. Raises `LockTaken`."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        advice = "give each consumer of this host a CONSUMER_NAME of its own"
        stack.enter_context(_hold(work_dir / f"consumer-{consumer}.lock", f"the name {consumer}", consumer, advice))
        if gpu_uuid is not None:
            name = re.sub(r"[^A-Za-z0-9._-]", "_", gpu_uuid.removeprefix("GPU-"))
            advice = "give each consumer a GPU_UUID of its own, as `inference-server gpus --write` does"
            stack.enter_context(_hold(work_dir / f"gpu-{name}.lock", f"GPU {gpu_uuid}", consumer, advice))
        yield


@contextmanager
def _hold(path: Path, what: str, consumer: str, advice: str) -> Iterator[None]:
    # Appending: the second consumer must not wipe what the first wrote.
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            # It is empty between the other consumer's lock and its line.
            holder = path.read_text().strip() or "another consumer"
            raise LockTaken(f"{what} is held by {holder}; {advice}") from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"consumer {consumer}, pid {os.getpid()}, since {since}\n")
        file.flush()
        # The file stays: removing it would let a third consumer lock a new one while a second waits for this.
        yield
