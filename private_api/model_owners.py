"""Whose a model is: who may change it, and who may use it."""

from sqlalchemy.orm import Session

from contract.access import Caller, Scope, not_shared
from contract.errors import InvalidRequest, PermissionDenied
from contract.model_versions import ModelChange
from private_api.tables import ModelRow, ModelUserRow


def may_change(model: ModelRow, caller: Caller) -> bool:
    """Whether the caller may replace, deploy, retire, share and delete the model, given the scope `models`.

    What callers without a key registered is theirs, where they may register models at all.
    """
    return caller.owner == model.owner or caller.may(Scope.OPERATE)


def require_change(model: ModelRow, caller: Caller) -> None:
    """Raises `PermissionDenied` unless the caller may change the model."""
    if may_change(model, caller):
        return
    name = model.human_readable_id
    if model.owner is None:
        raise PermissionDenied(
            f"the model {name!r} is nobody's, so it takes a key with the scopes models and operate to change it; "
            f"`inference-server models give {name} OWNER` makes it somebody's"
        )
    raise PermissionDenied(
        f"the model {name!r} belongs to another owner: only that owner's keys, and keys with the scope operate, may "
        "change it; register yours under another id"
    )


def require_use(model: ModelRow, owner: str | None) -> None:
    """Raises `PermissionDenied` unless the model computes for this owner; None is whoever shows no key."""
    users = users_of(model)
    if users is not None and owner not in users:
        raise PermissionDenied(not_shared(model.human_readable_id))


def users_of(model: ModelRow) -> list[str] | None:
    """The owners who may use the model; None for everybody."""
    if not model.restricted:
        return None
    return sorted({user.owner for user in model.users} | ({model.owner} if model.owner is not None else set()))


def set_first_owner(model: ModelRow, caller: Caller, *, restricted: bool) -> None:
    """Make a model, new or again, the caller's, and nobody else's. Raises `InvalidRequest`."""
    if restricted and caller.owner is None:
        raise InvalidRequest("restricted: a model that is nobody's cannot be kept for its owner; register it by a key")
    model.owner, model.restricted, model.users = caller.owner, restricted, []


def change_owner(session: Session, model: ModelRow, change: ModelChange, caller: Caller) -> None:
    """Share the model, or give it away, as far as the change says. Raises `PermissionDenied`, `InvalidRequest`."""
    if change.owner is not None:
        caller.require(Scope.OPERATE, "Giving models away needs a key with the scope operate.")
        model.owner = change.owner
    if change.users is not None:
        model.users = [ModelUserRow(owner=owner) for owner in sorted(set(change.users) - {model.owner})]
    if change.restricted is not None:
        model.restricted = change.restricted
    if model.restricted and model.owner is None and not model.users:
        raise InvalidRequest("restricted: the model is nobody's, so nobody could use it; name users, or an owner")
    session.flush()
