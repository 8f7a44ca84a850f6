"""Keeps the images that consumers of this host pulled for models within their budget, least recently used first.

Only what was pulled here is ever removed, since only that can be pulled again: an image that was on the host before, or
that a model with the pull policy `never` uses, is its operator's.

    <work>/images/<id>      a pulled image: its name; when it was written is when the image was last used
"""

import fcntl
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from contract.deployments import ReplicaAssignment
from contract.image_names import bare_name
from contract.schemas import Assignment, PullPolicy
from job_consumer.context import ConsumerContext
from job_consumer.engines import EngineUnavailable, RunKey, StoredImage
from job_consumer.workspace import Use
from kit.disk import free_bytes

logger = logging.getLogger(__name__)

_PREFIX = "sha256:"
_ID = re.compile(r"[0-9a-f]{64}")


_Assignment = TypeVar("_Assignment", Assignment, ReplicaAssignment)


def choose_image(context: ConsumerContext, assignment: _Assignment) -> _Assignment:
    """The assignment with the name of the image that is to run: where it is pinned, that of the pinned one.

    An image that was loaded by hand under the tag, so that no registry gave it a digest, counts as the pinned one.
    Raises `EngineUnavailable`.
    """
    if assignment.pinned_image is None:
        return assignment
    image = context.engine.find_image(assignment.container_tag)
    if image is not None and bare_name(assignment.container_tag) not in image.digests:
        return assignment
    return assignment.model_copy(update={"container_tag": assignment.pinned_image})


def open_image(
    context: ConsumerContext, user: RunKey, assignment: Assignment | ReplicaAssignment, ensure: Callable[[], None]
) -> None:
    """Call `ensure` unless the image is here, which makes it so and raises as the engine does; evict what is too much.

    As long as the files of `user`, an attempt or a replica, are there, its image is not evicted.
    """
    image = assignment.container_tag
    with _lock(context):
        context.work.note_use(user, Use.IMAGE, image)
    before = after = context.engine.find_image(image)
    if before is None or assignment.pull_policy is PullPolicy.ALWAYS:
        ensure()
        after = context.engine.find_image(image)
    if after is None:
        return
    record = _folder(context) / after.id.removeprefix(_PREFIX)
    was_pulled = before is None or before.id != after.id
    with _lock(context):
        if assignment.pull_policy is PullPolicy.NEVER:
            record.unlink(missing_ok=True)
        elif was_pulled or record.exists():
            record.write_text(image)
        if was_pulled:
            _evict(context)


def _evict(context: ConsumerContext) -> None:
    engine, used = context.engine, context.work.uses(Use.IMAGE)
    try:
        images = _pulled(context)
        disk = engine.storage_dir() or context.work.root
        kept = sum(image.size_bytes for _, image in images)
        for record, image in images:
            if kept <= context.image_cache_bytes and free_bytes(disk) >= context.sandbox.limits.disk_reserve_bytes:
                return
            name = record.read_text()
            named = engine.find_image(name)
            has_name = named is not None and named.id == image.id
            if has_name and name in used:
                continue
            # Once its name is another image's, only its id is left.
            if engine.remove_image(name if has_name else image.id):
                record.unlink()
                kept -= image.size_bytes
                logger.info("evicted the image %s (%s): %d bytes", name, image.id, image.size_bytes)
    except EngineUnavailable as error:
        logger.warning("no image is evicted, since the engine does not answer: %s", error)


def _pulled(context: ConsumerContext) -> list[tuple[Path, StoredImage]]:
    """The pulled images that still exist, the one whose last use is longest ago first."""
    records = [path for path in _folder(context).iterdir() if _ID.fullmatch(path.name)]
    found = []
    for record in sorted(records, key=lambda path: path.stat().st_mtime):
        if (image := context.engine.find_image(_PREFIX + record.name)) is not None:
            found.append((record, image))
        else:
            record.unlink()
    return found


def _folder(context: ConsumerContext) -> Path:
    return context.work.root / "images"


@contextmanager
def _lock(context: ConsumerContext) -> Iterator[None]:
    """Held by one consumer of the work directory at a time, while it looks at uses and records."""
    folder = _folder(context)
    folder.mkdir(exist_ok=True, mode=0o700)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
