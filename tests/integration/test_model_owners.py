"""Whose a model is: who may replace, deploy, share, give and delete it, who may use it, and where its names lead."""

from collections.abc import Callable
from typing import Any

import pytest

from contract.access import ANONYMOUS, Caller, Scope
from contract.errors import InvalidRequest, ModelExists, NameTaken, PermissionDenied
from contract.model_versions import ModelChange, VersionChange
from contract.queries import ModelRegistration
from contract.schemas import ModelView
from contract.serving import ServingSpec
from private_api.deployments.deploy import deploy_model, undeploy_model
from private_api.deployments.read import show_deployment
from private_api.deployments.routing import read_table, render_express_routes
from private_api.model_versions import change_model, change_version, delete_model, delete_version
from private_api.models import check_registration, list_models, show_model
from private_api.tasks.rerun import RerunOptions, rerun_task
from tests.integration.task_harness import Harness

ADA = Caller("ada", frozenset({Scope.SUBMIT, Scope.MODELS}))
EVE = Caller("eve", frozenset({Scope.SUBMIT, Scope.MODELS}))
CAROL = Caller("carol", frozenset({Scope.MODELS, Scope.OPERATE}))
OPEN = Caller(None, frozenset({Scope.SUBMIT, Scope.MODELS}))
"""Whoever shows no key, at a door that lets everybody register models."""


def change(harness: Harness, caller: Caller, **fields: Any) -> ModelView:
    return change_model(harness.database, "seg", ModelChange.model_validate(fields), caller)


def deploy(harness: Harness, name: str, caller: Caller, **serving: Any) -> None:
    deploy_model(harness.database, name, ServingSpec(port=8001, **serving), caller)


CHANGES: dict[str, Callable[[Harness, Caller], object]] = {
    "a new version": lambda harness, caller: harness.register("seg", replace=True, caller=caller),
    "before its body is read": lambda harness, caller: check_registration(
        harness.database,
        ModelRegistration(human_readable_id="seg", container_tag="evil:1", replace=True),
        caller,
        allow_process=False,
    ),
    "the default": lambda harness, caller: change(harness, caller, default_version=1),
    "retired": lambda harness, caller: change(harness, caller, retired=True),
    "shared": lambda harness, caller: change(harness, caller, users=["bob"]),
    "a version retired": lambda harness, caller: change_version(
        harness.database, "seg", 1, VersionChange(description="x"), caller
    ),
    "a version deleted": lambda harness, caller: delete_version(harness.database, "seg", 1, caller),
    "deployed": lambda harness, caller: deploy(harness, "seg", caller),
    "undeployed": lambda harness, caller: undeploy_model(harness.database, "seg", caller),
    "deleted": lambda harness, caller: delete_model(harness.database, "seg", caller),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_model_is_changed_by_its_owner_and_by_operators_alone(harness: Harness, what: str) -> None:
    harness.register("seg", caller=ADA)
    harness.register("seg", replace=True, caller=ADA)
    for stranger in (EVE, OPEN):
        with pytest.raises(PermissionDenied, match="belongs to another owner"):
            CHANGES[what](harness, stranger)
    CHANGES[what](harness, CAROL if what.startswith("a ") else ADA)


def test_what_nobody_owns_is_for_operators_to_change_and_to_give(harness: Harness) -> None:
    harness.register("seg", caller=OPEN)
    harness.register("seg", replace=True, caller=OPEN)
    with pytest.raises(PermissionDenied, match="inference-server models give seg OWNER"):
        harness.register("seg", replace=True, caller=ADA)
    with pytest.raises(PermissionDenied, match="scope operate"):
        change(harness, OPEN, owner="ada")
    assert change(harness, CAROL, owner="ada").owner == "ada"
    harness.register("seg", replace=True, caller=ADA)
    with pytest.raises(PermissionDenied, match="belongs to another owner"):
        harness.register("seg", replace=True, caller=OPEN)


def test_an_id_that_was_deleted_is_the_next_ones_and_shared_with_nobody(harness: Harness) -> None:
    harness.register("seg", caller=ADA, restricted=True)
    change(harness, ADA, users=["bob"])
    delete_model(harness.database, "seg", ADA)
    harness.register("SEG", caller=EVE)
    view = show_model(harness.database, "SEG", EVE)
    assert (view.owner, view.restricted, view.users) == ("eve", False, [])


def test_whoever_may_not_use_a_model_cannot_have_it_compute(harness: Harness) -> None:
    harness.register("seg", caller=ADA, restricted=True)
    bob = Caller("bob", frozenset({Scope.SUBMIT}))
    mine = harness.submit("seg", caller=ADA)
    for stranger in (bob, ANONYMOUS):
        with pytest.raises(PermissionDenied, match="for certain owners"):
            harness.submit("seg", caller=stranger)
    change(harness, ADA, users=["bob", "ada"])
    theirs = harness.submit("seg", caller=bob)
    change(harness, ADA, users=[])
    # A rerun belongs to the owner of the first task, whoever asks for it.
    rerun_task(harness.database, harness.store, mine, CAROL, RerunOptions())
    with pytest.raises(PermissionDenied, match="for certain owners"):
        rerun_task(harness.database, harness.store, theirs, CAROL, RerunOptions())
    change(harness, ADA, restricted=False)
    harness.submit("seg", caller=ANONYMOUS)


def test_a_new_version_leaves_it_as_it_was_whom_a_model_is_for(harness: Harness) -> None:
    harness.register("seg", caller=ADA, restricted=True)
    harness.register("seg", replace=True, caller=ADA)
    assert show_model(harness.database, "seg", ADA).restricted
    harness.register("seg", replace=True, restricted=False, caller=ADA)
    assert not show_model(harness.database, "seg", ADA).restricted


def test_a_model_that_nobody_could_use_is_refused(harness: Harness) -> None:
    with pytest.raises(InvalidRequest, match="register it by a key"):
        harness.register("seg", restricted=True, caller=OPEN)
    harness.register("seg", caller=OPEN)
    with pytest.raises(InvalidRequest, match="name users, or an owner"):
        change(harness, CAROL, restricted=True)
    assert not show_model(harness.database, "seg", CAROL).restricted


def test_only_who_may_change_a_model_sees_whose_it_is(harness: Harness) -> None:
    harness.register("seg", caller=ADA, restricted=True)
    change(harness, ADA, users=["bob"])
    for caller, owner, users in (
        (ADA, "ada", ["bob"]),
        (CAROL, "ada", ["bob"]),
        (EVE, None, []),
        (ANONYMOUS, None, []),
    ):
        view = list_models(harness.database, caller, limit=1, after="echo")[0]
        assert view == show_model(harness.database, "seg", caller)
        assert (view.owner, view.users, view.restricted) == (owner, users, True)


def test_no_name_of_another_owners_model_can_be_taken(harness: Harness) -> None:
    """Its callers would send their next patient's image to whoever took it."""
    harness.register("seg", caller=ADA)
    harness.register("other", caller=ADA)
    harness.register("evil", caller=EVE)
    deploy(harness, "seg", ADA, prefix="spleen", application="organs", model_names=["liver"])
    undeploy_model(harness.database, "seg", ADA)
    for names in (
        {"prefix": "spleen"},
        {"application": "organs"},
        {"applications": ["mine", "organs"]},
        {"model_names": ["liver"]},
        # An id leads to its own model, once that is deployed.
        {"application": "other"},
        {"model_names": ["Other"]},
    ):
        with pytest.raises(NameTaken, match="of a model of another owner"):
            deploy(harness, "evil", EVE, **names)
    deploy(harness, "other", ADA, prefix="spleen", application="organs", model_names=["liver"])
    # A deployment that gives its names up keeps them from others, too.
    deploy(harness, "other", ADA)
    with pytest.raises(NameTaken, match="of a model of another owner"):
        deploy(harness, "evil", EVE, prefix="spleen")
    delete_model(harness.database, "seg", ADA)
    undeploy_model(harness.database, "other", ADA)
    delete_model(harness.database, "other", ADA)
    deploy(harness, "evil", EVE, prefix="spleen", application="organs", model_names=["liver"])


def test_a_restricted_model_has_no_express_lane_and_tells_gateways_whose_calls_it_answers(harness: Harness) -> None:
    harness.register("seg", caller=ADA)
    deploy(harness, "seg", ADA, express=True)
    (route,) = read_table(harness.database).routes
    assert route.users is None
    change(harness, ADA, restricted=True, users=["bob"])
    table = read_table(harness.database)
    assert table.routes[0].users == ["ada", "bob"]
    assert render_express_routes(table, "example.org") == {}
    with pytest.raises(InvalidRequest, match="express"):
        deploy(harness, "seg", ADA, express=True)


def test_the_secrets_of_a_deployment_are_for_those_who_may_change_it(harness: Harness) -> None:
    harness.register("seg", caller=ADA)
    key = {"key": "admin-key", "value": "a secret", "categories": ["model-repository"]}
    deploy(harness, "seg", ADA, protocol="kserve", restricted_keys=[key])
    for caller, is_seen in ((ADA, True), (CAROL, True), (EVE, False), (OPEN, False)):
        assert ("a secret" in str(show_deployment(harness.database, "seg", caller))) is is_seen


def test_an_id_is_taken_for_everybody(harness: Harness) -> None:
    harness.register("seg", caller=ADA, restricted=True)
    with pytest.raises(ModelExists):
        harness.register("Seg", caller=EVE)
