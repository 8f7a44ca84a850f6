"""The lookups of models' images: which a consumer is due to make, and what it found.

The private API has no engine: whether a model's image can be had is known where it would run.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import ModelNotFound
from contract.image_lookups import ImageLookup, LookupResults
from contract.image_names import bare_name
from contract.schemas import ImageFinding, ModelView
from contract.statuses import Finding
from private_api.database import Database, repeated
from private_api.image_tables import ImageFindingRow
from private_api.models import DEFAULT_VERSION, find_version
from private_api.placement.consumers import check_consumer
from private_api.placement.occupancy import live_consumers
from private_api.tables import ConsumerRow, ModelRow, ModelVersionRow

_NEW = timedelta(days=1)
"""A version this young is looked up at once."""
_AGAIN = timedelta(hours=1)
_AGAIN_IN_REGISTRY = timedelta(days=1)
_PER_HOUR = 10
"""So many lookups that are not of new versions: a public registry lets an address ask only some 100 times in 6 h."""
_MOST = 20
"""In one answer."""


def due_lookups(database: Database, consumer: str, *, owner: str | None) -> list[ImageLookup]:
    """What a consumer is to look up now, new versions first.

    Raises `ConsumerNotFound`, and `PermissionDenied` if it belongs to another owner.
    """
    with database.read() as session:
        row = check_consumer(session, consumer, owner)
        now = database.now(session)
        is_new = and_(ImageFindingRow.found_at.is_(None), ModelVersionRow.created_at > now - _NEW)
        due = _find_due(session, row, is_new, _MOST)
        lately = select(func.count()).select_from(ImageFindingRow).where(ImageFindingRow.consumer == consumer)
        left = _PER_HOUR - (session.scalar(lately.where(ImageFindingRow.found_at > now - _AGAIN)) or 0)
        if not due and left > 0:
            due = _find_due(session, row, _is_old(now), left)
        return [
            ImageLookup(
                human_readable_id=version.model.human_readable_id,
                model_version=version.number,
                container_tag=version.container_tag,
                pull_policy=version.pull_policy,
            )
            for version in due
        ]


@repeated
def keep_findings(database: Database, found: LookupResults, *, owner: str | None) -> None:
    """Write down what a consumer found; of a version that was deleted meanwhile nothing is kept.

    The first digest that is found of a version to be pinned is the one that all its runs have from then on.

    Raises as `due_lookups` does.
    """
    with database.write() as session:
        check_consumer(session, found.consumer, owner)
        now = database.now(session)
        for each in found.results:
            try:
                version = find_version(session, f"{each.human_readable_id}@{each.model_version}")
            except ModelNotFound:
                continue
            if version.pin and version.pinned_image is None and _is_of(each.digest, version.container_tag):
                version.pinned_image = each.digest
            session.merge(
                ImageFindingRow(
                    consumer=found.consumer,
                    model_version_id=version.id,
                    finding=each.finding,
                    detail=each.detail,
                    found_at=now,
                )
            )


def _is_of(digest: str | None, image: str) -> bool:
    """Whether it is a digest of this image: no consumer, whose host may be another's, names another image."""
    return (
        digest is not None and re.fullmatch(rf"{re.escape(bare_name(image))}@sha256:[0-9a-f]{{64}}", digest) is not None
    )


def is_looked_up(database: Database, view: ModelView) -> bool:
    """Whether every live consumer that takes the model's tasks, and looks, has found something."""
    with database.read() as session:
        takers = _takers(session, view, database.now(session))
        found = _read_findings(session, [view])[view.human_readable_id, view.version]
    return all(row.name in found for row in takers if row.looks_up_images)


def add_findings(database: Database, views: Sequence[ModelView], caller: Caller) -> list[ModelView]:
    """The models with what their consumers found, and a warning where one of them does not get the image.

    Consumers are named to holders of a key only.
    """
    with database.read() as session:
        consumers = list(session.scalars(live_consumers(database.now(session)).order_by(ConsumerRow.name)))
        findings = _read_findings(session, views)
    return [_complete(view, consumers, findings[view.human_readable_id, view.version], caller) for view in views]


def _complete(
    view: ModelView, consumers: Sequence[ConsumerRow], found: dict[str, ImageFindingRow], caller: Caller
) -> ModelView:
    images = [_view(row, found.get(row.name)) for row in consumers if _takes(row, view)]
    warnings = [] if view.retired else _warn(view, images)
    return view.model_copy(update={"warnings": warnings, "images": images if caller.owner is not None else []})


def _view(consumer: ConsumerRow, found: ImageFindingRow | None) -> ImageFinding:
    if found is None:
        return ImageFinding(consumer=consumer.name, finding=Finding.UNKNOWN)
    return ImageFinding(consumer=consumer.name, finding=found.finding, detail=found.detail, found_at=found.found_at)


def _warn(view: ModelView, images: list[ImageFinding]) -> list[str]:
    missing = [image for image in images if image.finding is Finding.NOT_FOUND]
    if not missing:
        return []
    why = "; ".join(sorted({image.detail or "it did not say why" for image in missing}))
    if len(missing) == len(images):
        return [f"no consumer gets its image, so its tasks will fail with image_not_found: {why}"]
    few = f"{len(missing)} of the {len(images)} consumers that take its tasks"
    return [f"{few} do not get its image, so tasks that run there will fail with image_not_found: {why}"]


def _takers(session: Session, view: ModelView, now: datetime) -> list[ConsumerRow]:
    return [row for row in session.scalars(live_consumers(now)) if _takes(row, view)]


def _takes(consumer: ConsumerRow, view: ModelView) -> bool:
    return consumer.gpu_uuid is not None if view.use_gpu else consumer.accepts_cpu_tasks


def _read_findings(
    session: Session, views: Sequence[ModelView]
) -> defaultdict[tuple[str, int], dict[str, ImageFindingRow]]:
    """By model and version, then by consumer."""
    named = [(view.human_readable_id, view.version) for view in views]
    statement = (
        select(ModelRow.human_readable_id, ModelVersionRow.number, ImageFindingRow)
        .select_from(ImageFindingRow)
        .join(ModelVersionRow, ModelVersionRow.id == ImageFindingRow.model_version_id)
        .join(ModelVersionRow.model)
        .where(tuple_(ModelRow.human_readable_id, ModelVersionRow.number).in_(named))
    )
    findings: defaultdict[tuple[str, int], dict[str, ImageFindingRow]] = defaultdict(dict)
    for name, number, row in session.execute(statement):
        findings[name, number][row.consumer] = row
    return findings


def _find_due(
    session: Session, consumer: ConsumerRow, condition: ColumnElement[bool], limit: int
) -> list[ModelVersionRow]:
    """Default versions that take tasks, of the kinds that the consumer takes; those never looked up first."""
    kinds = [True] * (consumer.gpu_uuid is not None) + [False] * consumer.accepts_cpu_tasks
    statement = (
        select(ModelVersionRow)
        .join(ModelVersionRow.model)
        .outerjoin(
            ImageFindingRow,
            and_(ImageFindingRow.model_version_id == ModelVersionRow.id, ImageFindingRow.consumer == consumer.name),
        )
        .where(ModelVersionRow.number == DEFAULT_VERSION, ModelVersionRow.use_gpu.in_(kinds))
        .where(
            ModelVersionRow.deleted_at.is_(None), ModelVersionRow.retired_at.is_(None), ModelRow.retired_at.is_(None)
        )
        .where(condition)
        .order_by(ImageFindingRow.found_at.is_not(None), ImageFindingRow.found_at, ModelVersionRow.id.desc())
        .limit(limit)
    )
    return list(session.scalars(statement))


def _is_old(now: datetime) -> ColumnElement[bool]:
    """Whether a finding is missing, or so old that the image is looked up again."""
    return or_(
        ImageFindingRow.found_at.is_(None),
        ImageFindingRow.found_at < now - _AGAIN_IN_REGISTRY,
        and_(ImageFindingRow.finding != Finding.IN_REGISTRY, ImageFindingRow.found_at < now - _AGAIN),
    )
