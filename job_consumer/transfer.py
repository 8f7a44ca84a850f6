"""Moves archives between this host and the private API, checked by sha256, and repeats failed calls."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from contract.errors import InferenceError, ServiceUnavailable, StorageFull
from contract.private_client import ACCESS_ERRORS
from contract.schemas import MAX_WARNING_LENGTH, MAX_WARNINGS, Assignment, Commit, RunAssignment
from job_consumer.context import AttemptLost, ConsumerContext, ConsumerStopping
from job_consumer.engines import EngineUnavailable, RunKey
from job_consumer.failpoints import Failpoint
from job_consumer.heartbeat import LeaseHeartbeat
from job_consumer.output.survey import survey_output
from job_consumer.output.zip_stream import stream_zip
from job_consumer.run_disk import require_room
from job_consumer.unpack import unpack_archive
from kit.failpoints import reach

logger = logging.getLogger(__name__)

_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
DOUBT_S = 2 * 3600.0
"""How long what a run has brought is offered again after answers that explain nothing: repairing a server takes time,
and running the task again takes more."""

_Answer = TypeVar("_Answer")


def retry_until_accepted(
    context: ConsumerContext, heartbeat: LeaseHeartbeat, call: Callable[[], _Answer], *, doubt_s: float = 0.0
) -> _Answer:
    """Repeat a call until the private API accepts it, through its outages and while it refuses this consumer.

    An answer that explains nothing, such as a bare 500 or a proxy's page, is taken as final only `doubt_s` after the
    first try. Raises `ConsumerStopping`, `AttemptLost`, and every error of the call that repeating it would not mend.
    """
    tries, began_at = 0, time.monotonic()
    while True:
        try:
            return call()
        except (ServiceUnavailable, StorageFull) as error:
            logger.warning("the private API did not accept a call; it is repeated: %s", error)
        except ACCESS_ERRORS as error:
            context.note_refused(error)
        except InferenceError as error:
            # The bare class: every error that means something has a class of its own.
            if type(error) is not InferenceError or time.monotonic() - began_at >= doubt_s:
                raise
            logger.warning("the private API failed at a call, which is repeated: %s", error)
        pause = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
        tries += 1
        context.stopping.wait(pause)
        check_held(context, heartbeat)


def check_held(context: ConsumerContext, heartbeat: LeaseHeartbeat) -> None:
    """Raises `AttemptLost` once what the heartbeat is for is not ours, and `ConsumerStopping`."""
    if heartbeat.is_lost:
        raise AttemptLost
    if context.stopping.is_set():
        raise ConsumerStopping


def fetch_archive(fetch: Callable[[str, int, Path], str], key: RunKey, target: Path, sha256: str) -> None:
    """Make `target` an archive of the attempt, to be read and removed but never written to.

    `fetch` returns the sha256 of what it fetched. Raises `EngineUnavailable` when it arrives damaged.
    """
    if fetch(key.uid, key.fence, target) != sha256:
        raise EngineUnavailable(f"the archive {sha256} arrived damaged")
    reach(Failpoint.PREPARE_FETCHED)


def unpack_fetched(
    context: ConsumerContext,
    assignment: RunAssignment,
    archive: Path,
    folder: Path,
    *,
    make_room: Callable[[int], None] = lambda size_bytes: None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Unpack an archive of the assignment into an empty folder, within its limits and what is free on the disk.

    `make_room` may free what it is told before that is looked at. Raises what it and `check` do, `InvalidArchive`, and
    `OSError`: `DiskFull` before anything is written, if there is no room for it.
    """

    def find_room(size_bytes: int) -> None:
        make_room(size_bytes)
        require_room(folder, size_bytes, context.sandbox.limits.disk_reserve_bytes)

    unpack_archive(
        archive,
        folder,
        max_unpacked_bytes=assignment.max_unpacked_bytes,
        max_entries=assignment.max_entries,
        make_room=find_room,
        check=check,
    )


def upload_output(
    context: ConsumerContext,
    key: RunKey,
    folder: Path,
    assignment: Assignment,
    warnings: Sequence[str],
    *,
    image: str | None,
) -> Commit:
    """Stream the folder as a zip; returns the commit that makes it the result.

    `warnings` are told before those about the output; `image` is what ran. Raises `ModelFailed` for an output that is
    not acceptable, `ServiceUnavailable` when it arrives damaged.
    """
    reach(Failpoint.DELIVER_BEGUN)
    survey = survey_output(
        folder,
        max_bytes=assignment.max_output_bytes,
        max_entries=assignment.max_entries,
        strict=assignment.strict_output,
    )
    tally = _Tally(stream_zip(folder, survey.files))
    stored = context.api.upload_output(key.uid, key.fence, tally)
    if (stored.sha256, stored.size_bytes) != (tally.sha256, tally.size_bytes):
        raise ServiceUnavailable("the output arrived damaged and is sent again")
    reach(Failpoint.DELIVER_UPLOADED)
    told = [*warnings, *survey.warnings]
    return Commit(
        consumer=context.consumer,
        image=image,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        warnings=[warning[:MAX_WARNING_LENGTH] for warning in told[:MAX_WARNINGS]],
        warning_count=len(told),
    )


class _Tally:
    """Counts and hashes the bytes that pass through."""

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
