"""What may be deployed, under which names, and how a deployment is shown. On PostgreSQL and SQLite."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select, update

from contract.access import ANONYMOUS, Caller, Scope
from contract.deployments import DeploymentStatus, ReplicaAssignment, ReplicaReason
from contract.errors import DeploymentNotFound, InvalidRequest, ModelNotFound, NameTaken
from contract.serving import Category, RestrictedKey, ServingSpec
from private_api.deployment_tables import DeploymentNameRow, DeploymentRow, ReplicaRow
from private_api.deployments.deploy import undeploy_model
from private_api.deployments.read import list_deployments
from private_api.deployments.routing import read_table, render_express_routes
from tests.integration.deployment_harness import DeploymentHarness

NOBODY = Caller(None, frozenset())
REGISTRAR = Caller("eve", frozenset({Scope.MODELS}))
OPERATOR = Caller("carol", frozenset({Scope.MODELS, Scope.OPERATE}))


def test_a_model_that_is_deployed_is_idle_until_somebody_calls_it(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(owner="ada")
    plane.scale()
    view = plane.show()
    assert (view.status, view.replicas, view.owner, view.model_version) == (DeploymentStatus.IDLE, [], "ada", 1)
    assert view.serving == ServingSpec(port=8001)


@pytest.mark.parametrize(
    "fault",
    [
        {"port": 0},
        {"port": 65536},
        {"protocol": "soap"},
        {"replicas_min": 2, "replicas_max": 1},
        {"prefix": "has.dot"},
        {"prefix": "Upper"},
        {"default_service": "1bad"},
        {"application": "a b"},
        {"model_names": [""]},
        {"applications": ["a"], "application": "b"},
        {"liveness_timeout_s": 0},
        {"priority": 101},
        {"call_timeout_s": 0},
        {"restricted_keys": [{"categories": ["health"], "key": "Bad Key", "value": "x"}]},
        {
            "restricted_keys": [
                {"categories": ["health"], "key": "a", "value": "x"},
                {"categories": ["health"], "key": "b", "value": "y"},
            ]
        },
        {"nobody_knows": 1},
    ],
)
def test_a_description_that_makes_no_sense_is_none(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServingSpec.model_validate({"port": 8001, **fault})


def test_only_a_registered_model_can_be_deployed(plane: DeploymentHarness) -> None:
    with pytest.raises(ModelNotFound, match="'nobody'"):
        plane.deploy("nobody")


def test_a_model_that_runs_as_a_process_cannot_be_deployed(plane: DeploymentHarness) -> None:
    plane.register()
    with plane.tasks.database.write() as session:
        session.connection().exec_driver_sql("UPDATE model_versions SET container_tag = 'process:run'")
    with pytest.raises(InvalidRequest, match="run as a process"):
        plane.deploy()


def test_the_express_lane_wants_an_id_that_can_be_part_of_a_host_name(plane: DeploymentHarness) -> None:
    plane.register("v1.2")
    with pytest.raises(InvalidRequest, match="host name"):
        plane.deploy("v1.2", express=True)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"prefix": "p"}, {"prefix": "p"}, "the prefix 'p'"),
        ({"application": "app"}, {"application": "app"}, "the application 'app'"),
        ({"application": "other"}, {}, "the application 'other'"),
        ({"applications": ["a", "other"]}, {}, "the application 'other'"),
        ({"applications": ["a", "b"]}, {"application": "b"}, "the application 'b'"),
        ({"applications": ["a", "b"]}, {"applications": ["c", "a"]}, "the application 'a'"),
        ({"application": "b"}, {"applications": ["a", "b"]}, "the application 'b'"),
        ({"model_names": ["m", "n"]}, {"model_names": ["o", "n"]}, "the model name 'n'"),
        ({"model_names": ["other"]}, {}, "the model name 'other'"),
    ],
)
def test_a_name_leads_to_one_deployment_and_the_error_names_which(
    plane: DeploymentHarness, first: dict[str, Any], second: dict[str, Any], what: str
) -> None:
    plane.register("echo")
    plane.register("other")
    plane.deploy("echo", **first)
    with pytest.raises(NameTaken, match=f"{what} is that of the deployment 'echo'"):
        plane.deploy("other", **second)
    assert [view.human_readable_id for view in list_deployments(plane.tasks.database, NOBODY, limit=9, after=None)] == [
        "echo"
    ]
    plane.deploy("echo", application="free", model_names=["free"])
    plane.deploy("other", **second)


def test_two_deployments_may_call_their_models_the_same_inside(plane: DeploymentHarness) -> None:
    """As two stock containers do that serve one model each."""
    for name in ("service1", "service2"):
        plane.register(name)
        plane.deploy(name, protocol="tensorflow", prefix=name, unrouted_model_names=["model"])
    routes = read_table(plane.tasks.database).routes
    assert [(route.model_names, route.inner_model_names) for route in routes] == [([], ["model"])] * 2
    # They take nothing from a deployment whose calls the name leads to.
    plane.register("model")
    plane.deploy("model")
    plane.deploy("service1", prefix="service1", model_names=["one"], unrouted_model_names=["model"])
    assert read_table(plane.tasks.database).routes[1].inner_model_names == ["one", "model"]


def test_of_many_that_want_a_name_at_once_one_gets_it(plane: DeploymentHarness) -> None:
    names = [f"m{number}" for number in range(8)]
    for name in names:
        plane.register(name)

    def deploy(name: str) -> bool:
        try:
            plane.deploy(name, prefix="p", application="app", model_names=["n"])
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(deploy, names)) == 1


def test_deploying_again_keeps_a_deployment_its_own_names(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(prefix="p", model_names=["a", "b"])
    plane.deploy(prefix="p", model_names=["b", "c", "c"])
    with plane.tasks.database.read() as session:
        assert sorted(session.scalars(select(DeploymentNameRow.name))) == ["b", "c"]


def test_removed_names_are_free_again_and_removing_twice_is_fine(plane: DeploymentHarness) -> None:
    plane.register("echo")
    plane.register("other")
    plane.deploy("echo", prefix="p")
    undeploy_model(plane.tasks.database, "echo", ANONYMOUS)
    undeploy_model(plane.tasks.database, "echo", ANONYMOUS)
    with pytest.raises(DeploymentNotFound):
        plane.show("echo")
    with pytest.raises(ModelNotFound):
        undeploy_model(plane.tasks.database, "nobody", ANONYMOUS)
    plane.deploy("other", prefix="p", application="echo", model_names=["echo"])


def test_removing_a_deployment_drains_what_runs_and_ends_what_waits(plane: DeploymentHarness) -> None:
    uid = plane.start(replicas_max=2, target_in_flight=1)
    plane.report(in_flight=2, replicas={uid: 2})
    plane.scale()
    waiting = plane.live()[1].uid
    undeploy_model(plane.tasks.database, "echo", ANONYMOUS)
    assert (plane.row(waiting).status, plane.row(waiting).reason) == ("ended", "surplus")
    assert (plane.row(uid).status, plane.row(uid).reason) == ("draining", "surplus")
    assert not plane.beat_uid(uid).stop
    plane.report(in_flight=0)
    assert plane.beat_uid(uid).stop
    plane.end_uid(uid)
    assert (plane.row(uid).status, plane.row(uid).reason) == ("ended", ReplicaReason.SURPLUS)


def test_a_deployment_that_comes_back_owes_nothing_to_the_one_that_was_removed(plane: DeploymentHarness) -> None:
    uid = plane.start()
    undeploy_model(plane.tasks.database, "echo", ANONYMOUS)
    plane.deploy(replicas_min=1)
    plane.scale()
    assert plane.statuses() == ["wanted"]
    assert plane.row(uid).status == "draining"


def test_the_values_of_restricted_keys_are_shown_to_those_who_may_change_them(plane: DeploymentHarness) -> None:
    plane.register()
    key = RestrictedKey(categories=[Category.MODEL_REPOSITORY], key="admin", value="a secret")
    plane.deploy(restricted_keys=[key])
    assert plane.show(caller=OPERATOR).serving.restricted_keys == [key]
    for stranger in (NOBODY, REGISTRAR):
        (shown,) = plane.show(caller=stranger).serving.restricted_keys
        assert (shown.key, shown.value) == ("admin", "***")
    assert "a secret" not in str(list_deployments(plane.tasks.database, NOBODY, limit=9, after=None))
    # The gateway needs it.
    assert read_table(plane.tasks.database).routes[0].serving.restricted_keys == [key]


SAID = "the container ended with exit code 3; its log ends with:\nreading SMITH^JOHN.dcm"
SUMMARY = "the container ended with exit code 3"
INSIDERS = [
    Caller("ada", frozenset({Scope.SUBMIT})),
    Caller("eve", frozenset({Scope.OPERATE})),
    Caller("eve", frozenset({Scope.ADMIN})),
]
OUTSIDERS = [NOBODY, REGISTRAR, Caller("eve", frozenset({Scope.SUBMIT}))]


def start_of_ada(plane: DeploymentHarness) -> ReplicaAssignment:
    plane.register()
    plane.deploy(owner="ada", replicas_min=1)
    plane.scale()
    return plane.claim()


def test_what_a_container_said_is_for_the_deployments_owner_and_operators(plane: DeploymentHarness) -> None:
    plane.end(start_of_ada(plane), summary=SUMMARY, detail=SAID)
    for caller in INSIDERS:
        view = plane.show(caller=caller)
        assert (view.replicas[-1].detail, view.detail) == (SAID, f"container_ended, exit code 3: {SAID}")
    for caller in OUTSIDERS:
        (listed,) = list_deployments(plane.tasks.database, caller, limit=9, after=None)
        for view in (plane.show(caller=caller), listed):
            assert "SMITH" not in view.model_dump_json()
            assert (view.replicas[-1].detail, view.detail) == (SUMMARY, f"container_ended, exit code 3: {SUMMARY}")
            assert view.summary == view.detail
    # Gateways answer failing calls with it.
    (route,) = read_table(plane.tasks.database).routes
    assert route.detail == f"container_ended, exit code 3: {SUMMARY}"


def test_so_is_what_a_probe_heard(plane: DeploymentHarness) -> None:
    plane.beat(start_of_ada(plane), ready=False, detail="UNAVAILABLE: still reading SMITH^JOHN.dcm")
    assert plane.show(caller=INSIDERS[0]).detail == "not ready yet: UNAVAILABLE: still reading SMITH^JOHN.dcm"
    assert {plane.show(caller=caller).detail for caller in OUTSIDERS} == {"not ready yet"}
    assert read_table(plane.tasks.database).routes[0].detail == "not ready yet"


def test_a_consumer_that_sums_nothing_up_is_summed_up_by_reason_and_exit_code(plane: DeploymentHarness) -> None:
    plane.end(start_of_ada(plane), detail=SAID)
    view = plane.show(caller=REGISTRAR)
    assert (view.replicas[-1].detail, view.detail) == ("container_ended, exit code 3",) * 2


def test_rows_of_a_release_without_summaries_show_outsiders_nothing_of_the_log(plane: DeploymentHarness) -> None:
    plane.end(start_of_ada(plane), summary=SUMMARY, detail=SAID)
    with plane.tasks.database.write() as session:
        for row in (DeploymentRow, ReplicaRow):
            session.execute(update(row).values(summary=None))
    assert plane.show(caller=INSIDERS[0]).replicas[-1].detail == SAID
    view = plane.show(caller=REGISTRAR)
    assert (view.replicas[-1].detail, view.detail) == ("the deployment's owner and operators see why",) * 2


def test_deployments_are_listed_in_pages(plane: DeploymentHarness) -> None:
    for name in ("b", "a", "c"):
        plane.register(name)
        plane.deploy(name)
    first = list_deployments(plane.tasks.database, NOBODY, limit=2, after=None)
    rest = list_deployments(plane.tasks.database, NOBODY, limit=2, after=first[-1].human_readable_id)
    assert [view.human_readable_id for view in [*first, *rest]] == ["a", "b", "c"]


def test_a_view_has_the_replicas_that_live_and_the_last_few_that_ended(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(replicas_min=1)
    for number in range(7):
        plane.scale()
        plane.end(plane.claim(), ReplicaReason.NOT_READY, detail=f"try {number}")
        plane.deploy(replicas_min=1)
    plane.scale()
    view = plane.show()
    assert [replica.detail for replica in view.replicas] == [None, *(f"try {number}" for number in (6, 5, 4, 3, 2))]


# What gateways route by.


def test_the_table_has_every_deployment_and_the_replicas_that_are_ready(plane: DeploymentHarness) -> None:
    plane.register("cold")
    plane.deploy("cold")
    uid = plane.start("warm", replicas_max=3, target_in_flight=1)
    plane.report("warm", in_flight=3, replicas={uid: 3})
    plane.scale()
    plane.claim()
    table = read_table(plane.tasks.database)
    assert [(route.human_readable_id, route.status) for route in table.routes] == [("cold", "idle"), ("warm", "ready")]
    assert [[backend.uid for backend in route.backends] for route in table.routes] == [[], [uid]]
    assert table.routes[1].backends[0].address == "10.0.0.7:8001"


def test_the_etag_changes_with_the_content_and_only_then(plane: DeploymentHarness) -> None:
    plane.register()
    etags = [read_table(plane.tasks.database).etag]
    plane.deploy(replicas_min=1)
    etags.append(read_table(plane.tasks.database).etag)
    plane.scale()
    etags.append(read_table(plane.tasks.database).etag)
    held = plane.claim()
    plane.beat(held)
    etags.append(read_table(plane.tasks.database).etag)
    plane.beat(held)
    plane.scale()
    assert read_table(plane.tasks.database).etag == etags[-1]
    plane.deploy(replicas_min=1, max_in_flight=7)
    etags.append(read_table(plane.tasks.database).etag)
    assert len(set(etags)) == len(etags)


def test_traefik_is_told_the_express_routes_that_have_a_replica(plane: DeploymentHarness) -> None:
    assert render_express_routes(read_table(plane.tasks.database), "example.org") == {}
    plane.start("plain")
    plane.register("cold")
    plane.deploy("cold", express=True)
    plane.start("fast", express=True)
    rendered = render_express_routes(read_table(plane.tasks.database), "example.org")
    assert rendered["tcp"]["routers"] == {
        "express-fast": {
            "entryPoints": ["https"],
            "rule": "HostSNI(`fast.grpc.example.org`)",
            "service": "express-fast",
            "tls": {"options": "express"},
        }
    }
    assert rendered["tcp"]["services"] == {
        "express-fast": {"loadBalancer": {"servers": [{"address": "10.0.0.7:8001"}]}}
    }
    assert rendered["tls"]["options"]["express"]["alpnProtocols"] == ["h2"]


# Another description.


def test_what_no_container_notices_changes_without_a_new_replica(plane: DeploymentHarness) -> None:
    uid = plane.start()
    plane.deploy(replicas_min=1, priority=7, drain_timeout_s=99, max_in_flight=3, prefix="p")
    plane.scale()
    assert [replica.uid for replica in plane.live()] == [uid]
    row = plane.row(uid)
    assert (row.priority, ServingSpec.model_validate_json(row.serving).drain_timeout_s) == (7, 99)


def test_a_new_version_takes_over_once_it_is_ready(plane: DeploymentHarness) -> None:
    old = plane.start()
    plane.register(replace=True)
    plane.scale()
    assert [replica.uid for replica in plane.live()] == [old], "a registration alone replaces nothing"
    plane.deploy(replicas_min=1)
    plane.scale()
    assert plane.statuses() == ["ready", "wanted"]
    new = plane.claim()
    assert new.model_version == 2
    plane.scale()
    assert plane.statuses() == ["ready", "starting"]
    plane.beat(new)
    plane.scale()
    assert plane.statuses() == ["draining", "ready"]
    assert [replica.uid for replica in plane.live()] == [old, new.uid]


@pytest.mark.parametrize("change", [{"protocol": "kserve"}, {"readiness": "tcp"}, {"serves_tasks": True}])
def test_what_a_container_notices_replaces_it(plane: DeploymentHarness, change: dict[str, Any]) -> None:
    plane.start()
    plane.deploy(replicas_min=1, **change)
    plane.scale()
    assert plane.statuses() == ["ready", "wanted"]


def test_a_replica_that_waits_for_the_wrong_model_is_replaced_and_a_ready_one_stays(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(replicas_min=1, protocol="tensorflow")
    plane.scale()
    plane.claim()
    plane.deploy(replicas_min=1, protocol="tensorflow", unrouted_model_names=["model"])
    plane.scale()
    assert plane.statuses() == ["draining", "wanted"]
    held = plane.claim()
    assert held.serving.unrouted_model_names == ["model"]
    plane.beat(held)
    plane.deploy(replicas_min=1, protocol="tensorflow", model_names=["model"])
    plane.scale()
    assert plane.live()[-1].uid == held.uid
    assert plane.live()[-1].status == "ready"


def test_applications_change_without_a_new_replica_once_it_is_ready(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(replicas_min=1, protocol="ray", applications=["app1"])
    plane.scale()
    plane.claim()
    plane.deploy(replicas_min=1, protocol="ray", applications=["app1", "app2"])
    plane.scale()
    assert plane.statuses() == ["draining", "wanted"], "it would wait for the old ones only"
    ready = plane.claim()
    plane.beat(ready)
    plane.deploy(replicas_min=1, protocol="ray", applications=["app2"], liveness_timeout_s=7)
    plane.scale()
    assert (plane.live()[-1].uid, plane.live()[-1].status) == (ready.uid, "ready")
    assert read_table(plane.tasks.database).routes[0].applications == ["app2"]


def test_replicas_are_replaced_one_by_one(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(replicas_min=2, replicas_max=2)
    plane.scale()
    for _ in range(2):
        plane.beat(plane.claim())
    plane.deploy(replicas_min=2, replicas_max=2, readiness="tcp")
    plane.scale()
    assert plane.statuses() == ["ready", "ready", "wanted", "wanted"]
    first, second = plane.claim(), plane.claim()
    plane.beat(first)
    plane.scale()
    assert sorted(plane.statuses()) == ["draining", "ready", "ready", "starting"]
    plane.beat(second)
    plane.scale()
    assert sorted(plane.statuses()) == ["draining", "draining", "ready", "ready"]


def test_the_old_version_stays_while_the_new_one_fails(plane: DeploymentHarness) -> None:
    old = plane.start()
    plane.deploy(replicas_min=1, readiness="tcp")
    plane.scale()
    plane.end(plane.claim(), ReplicaReason.NOT_READY)
    plane.scale()
    assert [replica.uid for replica in plane.live()] == [old]
    assert plane.show().status == DeploymentStatus.READY
    assert "not_ready" in (plane.show().detail or "")


def test_what_has_not_started_is_replaced_at_once(plane: DeploymentHarness) -> None:
    plane.register()
    plane.deploy(replicas_min=1)
    plane.scale()
    old = plane.claim()
    plane.deploy(replicas_min=1, readiness="tcp")
    plane.scale()
    assert plane.statuses() == ["draining", "wanted"]
    assert plane.beat(old, ready=False).stop


def test_where_an_old_replica_has_the_only_place_it_goes_first(plane: DeploymentHarness) -> None:
    old = plane.start(use_gpu=True)
    plane.deploy(replicas_min=1, readiness="tcp")
    plane.scale()
    assert plane.statuses() == ["ready", "wanted"]
    with plane.tasks.database.write() as session:
        waiting = session.scalars(select(ReplicaRow).where(ReplicaRow.status == "wanted")).one().uid
    plane.shift_replica(waiting, created_at=timedelta(seconds=-10))
    plane.scale()
    assert plane.show().replicas[1].detail == "waits for a consumer with a free GPU"
    assert plane.row(old).status == "draining"
