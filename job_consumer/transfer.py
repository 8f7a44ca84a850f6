"""Moves archives between this host and the private API, checked by sha256, and repeats what did not get through."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from contract.errors import ServiceUnavailable, StorageFull
from contract.private_client import REFUSALS, PrivateClient
from contract.schemas import Commit
from job_consumer.collect import stream_zip
from job_consumer.engine import EngineUnavailable, RunKey
from job_consumer.heart import Heart
from job_consumer.host import AttemptLost, ConsumerStopping, Host

logger = logging.getLogger(__name__)

_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)

_Answer = TypeVar("_Answer")


def persist(host: Host, heart: Heart, call: Callable[[], _Answer]) -> _Answer:
    """Repeat a call until the private API answers it: what it cannot take now, or not from us, it takes later.

    Raises `ConsumerStopping`, `AttemptLost`, and every answer of the call that is not "try again".
    """
    tries = 0
    while True:
        try:
            return call()
        except (ServiceUnavailable, StorageFull) as error:
            logger.warning("the private API did not take a call, it is repeated: %s", error)
        except REFUSALS as error:
            host.note_refused(error)
        pause = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
        tries += 1
        if host.stopping.wait(pause):
            raise ConsumerStopping
        if heart.is_lost:
            raise AttemptLost


def fetch_archive(fetch: Callable[[str, int, Path], None], key: RunKey, target: Path, sha256: str) -> None:
    """Write an archive of the attempt to `target`. Raises `EngineUnavailable` when other bytes arrived."""
    fetch(key.uid, key.fence, target)
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise EngineUnavailable(f"the archive {sha256} arrived damaged")


def upload_output(api: PrivateClient, consumer: str, key: RunKey, folder: Path, max_bytes: int) -> Commit:
    """Stream the folder as a zip; returns the commit that makes it the result.

    Raises `ModelFailed` for an output that cannot be taken, `ServiceUnavailable` when other bytes arrived.
    """
    tally = _Tally(stream_zip(folder, max_bytes=max_bytes))
    stored = api.upload_output(key.uid, key.fence, tally)
    if (stored.sha256, stored.size_bytes) != (tally.sha256, tally.size_bytes):
        raise ServiceUnavailable("the output arrived damaged and is sent again")
    return Commit(consumer=consumer, sha256=stored.sha256, size_bytes=stored.size_bytes)


class _Tally:
    """Counts and hashes what passes through."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            self.size_bytes += len(piece)
            yield piece
