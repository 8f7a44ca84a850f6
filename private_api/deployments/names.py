"""The names by which calls reach deployments: each leads to one deployment, and stays with the owner who took it first.

A name that was given up must not lead its callers, who know nothing of that, to the model of somebody else.
"""

from collections.abc import Iterable

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from contract.access import Caller
from contract.errors import NameTaken
from contract.serving import ServingSpec
from private_api.deployment_tables import DeploymentNameRow, DeploymentRow, ServedName, ServedNameRow
from private_api.deployments.rows import serving_of
from private_api.model_owners import may_change
from private_api.tables import ModelRow, ModelVersionRow

_SAID = {
    ServedName.PREFIX: "the prefix",
    ServedName.APPLICATION: "the application",
    ServedName.MODEL: "the model name",
}


def take_names(
    session: Session, row: DeploymentRow | None, model: ModelRow, serving: ServingSpec, caller: Caller
) -> None:
    """Note that these names lead to the model, whose deployment is `row` if there is one. Raises `NameTaken`.

    The transaction has serialized the names of deployments.
    """
    names = [
        *((ServedName.PREFIX, name) for name in [serving.prefix] if name is not None),
        *((ServedName.APPLICATION, name) for name in serving.routed_applications(model.human_readable_id)),
        *((ServedName.MODEL, name) for name in dict.fromkeys(serving.routed_model_names(model.human_readable_id))),
    ]
    _refuse_deployed(session, row.id if row else 0, names)
    for kind, name in names:
        _refuse_foreign(session, model, kind, name, caller)
        session.merge(ServedNameRow(kind=kind, name=name, model_id=model.id))


def store_names(session: Session, row: DeploymentRow, names: Iterable[str]) -> None:
    """Route by these model names to the deployment, and by no others."""
    drop_names(session, row)
    session.add_all(DeploymentNameRow(name=name, deployment_id=row.id) for name in names)


def drop_names(session: Session, row: DeploymentRow) -> None:
    """Route by no model name to the deployment."""
    session.execute(delete(DeploymentNameRow).where(DeploymentNameRow.deployment_id == row.id))


def _refuse_foreign(session: Session, model: ModelRow, kind: ServedName, name: str, caller: Caller) -> None:
    """Raises `NameTaken` for a name of a model that the caller may not change."""
    held = session.get(ServedNameRow, (kind, name))
    others = [held.model] if held is not None else []
    if kind is not ServedName.PREFIX:
        # A model's own id leads to it once it is deployed.
        is_there = exists().where(ModelVersionRow.model_id == ModelRow.id, ModelVersionRow.deleted_at.is_(None))
        same = select(ModelRow).where(func.lower(ModelRow.human_readable_id) == name.lower(), is_there)
        others += session.scalars(same)
    if any(other.id != model.id and not may_change(other, caller) for other in others):
        raise NameTaken(f"{_SAID[kind]} {name!r} is that of a model of another owner; choose another")


def _refuse_deployed(session: Session, own_id: int, names: list[tuple[ServedName, str]]) -> None:
    others = select(DeploymentRow).where(DeploymentRow.id != own_id)
    # Rows have the first application of each; the further ones are in the serving spec.
    leading = {
        (ServedName.APPLICATION, application): row
        for row in session.scalars(others)
        for application in serving_of(row).routed_applications(row.model.human_readable_id)
    }
    named = others.join(DeploymentNameRow, DeploymentNameRow.deployment_id == DeploymentRow.id)
    for kind, name in names:
        if kind is ServedName.PREFIX:
            other = session.scalars(others.where(DeploymentRow.prefix == name)).first()
        elif kind is ServedName.MODEL:
            other = session.scalars(named.where(DeploymentNameRow.name == name)).first()
        else:
            other = leading.get((kind, name))
        if other is not None:
            deployment = other.model.human_readable_id
            raise NameTaken(f"{_SAID[kind]} {name!r} is that of the deployment {deployment!r}; choose another")
