"""How consumers, deployments, the queue and runs stand, each with the number of the look at which it last changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from contract.access import ANONYMOUS, Caller, Scope
from contract.deployments import DeploymentView
from contract.events import DeploymentEvent, EventType, ProgressEvent, QueueEvent
from contract.overview import ConsumerView
from contract.schemas import Message
from contract.statuses import Status
from private_api.database import Database
from private_api.deployments.read import hide_secrets, list_deployments
from private_api.feed.changes import is_told
from private_api.placement.fleet import hide_foreign, list_consumers
from private_api.placement.queue import read_queue
from private_api.tables import ModelRow, ModelVersionRow, TaskRow
from private_api.tasks.rows import may_read

_EVERYTHING = Caller("", frozenset({Scope.ADMIN}))
"""Sees all; what a caller may not see is taken out once it is told."""
_PAGE = 500
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Fact:
    """How one thing stands, as an administrator sees it."""

    type: EventType
    name: str
    data: Message
    changed: int
    """The number of the look that found it so."""

    @property
    def is_gone(self) -> bool:
        """Whether it stands for something that was there and is no more."""
        return isinstance(self.data, DeploymentEvent) and self.data.deployment is None

    def told_to(self, caller: Caller, uids: frozenset[str]) -> Message | None:
        """It as this caller, who named these uids or none, may see it; None if not at all."""
        if isinstance(self.data, ConsumerView):
            return None if caller.owner is None else hide_foreign(self.data, caller)
        if isinstance(self.data, DeploymentEvent) and self.data.deployment is not None:
            shown = hide_secrets(self.data.deployment, caller)
            return self.data.model_copy(update={"deployment": shown})
        if isinstance(self.data, ProgressEvent):
            if not is_told(self.data.uid, self.data.owner, caller, uids):
                return None
            return (
                self.data if may_read(caller, self.data.owner) else self.data.model_copy(update={"progress_text": None})
            )
        return self.data


Facts = Mapping[tuple[EventType, str], Fact]


def look_around(database: Database, before: Facts, look: int) -> Facts:
    """How everything stands now. What stands as before keeps the number of its last change."""
    found = {(type_, name): data for type_, name, data in _read(database)}
    # Of the others only tasks cease to run, which their own events tell.
    gone = [key for key in before if key not in found and key[0] is EventType.DEPLOYMENT]
    found |= {key: DeploymentEvent(human_readable_id=key[1], deployment=None) for key in gone}
    return {key: _number(before.get(key), key, data, look) for key, data in found.items()}


def _number(old: Fact | None, key: tuple[EventType, str], data: Message, look: int) -> Fact:
    is_same = old is not None and _lasting(old.data) == _lasting(data)
    return Fact(*key, data, old.changed if old is not None and is_same else look)


def _lasting(data: Message) -> Message:
    """Without what changes with every heartbeat."""
    return data.model_copy(update={"seen_at": _LONG_AGO}) if isinstance(data, ConsumerView) else data


def _read(database: Database) -> Iterator[tuple[EventType, str, Message]]:
    for consumer in _consumers(database):
        yield EventType.CONSUMER, consumer.name, consumer
    for view in _deployments(database):
        data = DeploymentEvent(human_readable_id=view.human_readable_id, deployment=view)
        yield EventType.DEPLOYMENT, view.human_readable_id, data
    yield EventType.QUEUE, "", QueueEvent(lanes=read_queue(database, ANONYMOUS, limit=1).lanes)
    for progress in _progress(database):
        yield EventType.PROGRESS, progress.uid, progress


def _consumers(database: Database) -> Iterator[ConsumerView]:
    after: str | None = None
    while page := list_consumers(database, _EVERYTHING, limit=_PAGE, after=after):
        yield from page
        after = page[-1].name


def _deployments(database: Database) -> Iterator[DeploymentView]:
    after: str | None = None
    while page := list_deployments(database, _EVERYTHING, limit=_PAGE, after=after):
        yield from page
        after = page[-1].human_readable_id


def _progress(database: Database) -> list[ProgressEvent]:
    """Of every run whose model says how far it is."""
    statement = (
        select(TaskRow.uid, TaskRow.owner, ModelRow.human_readable_id, TaskRow.progress, TaskRow.progress_text)
        .join(ModelVersionRow, ModelVersionRow.id == TaskRow.model_version_id)
        .join(ModelRow, ModelRow.id == ModelVersionRow.model_id)
        .where(TaskRow.status == Status.RUNNING, TaskRow.progress.is_not(None))
        .order_by(TaskRow.id)
    )
    with database.read() as session:
        return [ProgressEvent.model_validate(row._mapping) for row in session.execute(statement)]
