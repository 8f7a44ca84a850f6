"""What a replica's container is made of, who may borrow it, and who may be on the GPU."""

import threading
from pathlib import Path
from typing import Any

import pytest

from contract.deployments import ReplicaAssignment
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.engines import ContainerSpec, RunKey, RunKind
from job_consumer.engines.docker.profile import reached_at
from job_consumer.gpu_gate import GpuGate
from job_consumer.networks import NetworkAccess, Publication
from job_consumer.replicas.ready import ReadyReplica, ReadyReplicas, ReplicaGone
from job_consumer.replicas.spec import decide_replica, model_names
from job_consumer.settings import JobConsumerSettings
from job_consumer.workspace import ModelFolder, ReplicaFolder, WorkDir
from kit.settings import SettingsError

UID = "ab" * 32
SECRETS = {"SERVICE_TOKEN": "0123456789abcdef", "RABBIT_PASSWORD": "0123456789abcdef"}
FOLDER = ReplicaFolder(Path("/w/replicas/ada/x-3"))
LIMITS = Limits(1000, 2.0, 3, 400, 5, 6)
MODEL = ModelFolder("cd" * 32, Path("/w/models/cd"))


def assignment(*, serving: dict[str, Any] | None = None, **changes: Any) -> ReplicaAssignment:
    given = {
        "uid": UID,
        "fence": 3,
        "lease_s": 60,
        "human_readable_id": "spleen",
        "model_version": 2,
        "container_tag": "spleen:2",
        "use_gpu": False,
        "pull_policy": "missing",
        "isolation": "strict",
        "memory_limit_bytes": None,
        "max_unpacked_bytes": 1000,
        "model_archive": None,
        "serving": {"port": 8001, **(serving or {})},
        "environment": {"DEPLOYMENT": "spleen", "MODEL_DIR": "/model"},
    }
    return ReplicaAssignment.model_validate(given | changes)


def decide(
    given: ReplicaAssignment, *, publish_address: str | None = None, model: ModelFolder | None = MODEL
) -> ContainerSpec:
    sandbox = Sandbox("ada", LIMITS, gpu_uuid="GPU-1", network="replicas", publish_address=publish_address)
    return decide_replica(RunKey(UID, 3, RunKind.REPLICA), given, sandbox, FOLDER, model)


@pytest.mark.parametrize(
    ("serving", "names"),
    [
        ({}, ["spleen"]),
        ({"model_names": ["a", "b"]}, ["a", "b"]),
        ({"unrouted_model_names": ["model"]}, ["model"]),
        ({"model_names": ["a"], "unrouted_model_names": ["model", "a"]}, ["a", "model"]),
    ],
)
def test_a_container_must_have_the_models_by_its_own_names(serving: dict[str, Any], names: list[str]) -> None:
    assert model_names(assignment(serving=serving)) == names


def test_the_serving_port_is_published_where_the_consumer_is_told_to() -> None:
    assert decide(assignment(), publish_address="192.0.2.7").publication == Publication("192.0.2.7", 8001)


@pytest.mark.parametrize(
    ("publication", "ports", "address"),
    [
        (None, {"8001/tcp": None}, "172.20.0.2:8001"),
        ("192.0.2.7", {"8001/tcp": [{"HostIp": "192.0.2.7", "HostPort": "32768"}]}, "192.0.2.7:32768"),
        ("2001:db8::7", {"8001/tcp": [{"HostIp": "2001:db8::7", "HostPort": "32768"}]}, "[2001:db8::7]:32768"),
        ("192.0.2.7", {}, None),
    ],
)
def test_an_address_is_the_published_one_or_that_on_the_network(
    publication: str | None, ports: dict[str, Any], address: str | None
) -> None:
    bindings = {"8001/tcp": [{"HostIp": publication, "HostPort": ""}]} if publication else None
    container = {
        "HostConfig": {"PortBindings": bindings},
        "NetworkSettings": {"Ports": ports, "Networks": {"replicas": {"IPAddress": "172.20.0.2"}}},
    }
    assert reached_at(container, 8001) == address


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "node-a"])  # noqa: S104 - refused
def test_replicas_are_published_at_one_address_that_is_named(address: str) -> None:
    with pytest.raises(SettingsError, match="REPLICA_PUBLISH_ADDRESS"):
        JobConsumerSettings.load(SECRETS | {"REPLICA_PUBLISH_ADDRESS": address})
    assert JobConsumerSettings.load(SECRETS | {"REPLICA_PUBLISH_ADDRESS": "192.0.2.7"}).publish_address == "192.0.2.7"
    assert JobConsumerSettings.load(SECRETS | {"REPLICA_PUBLISH_ADDRESS": ""}).publish_address is None


def test_a_replica_is_a_sandbox_on_the_replicas_network() -> None:
    spec = decide(assignment())
    assert spec.key == RunKey(UID, 3, RunKind.REPLICA)
    assert spec.key.name == f"is-replica-{UID}-3"
    assert (spec.network, spec.user, spec.isolation) == (NetworkAccess("replicas", 8001), "65532:65532", "strict")
    told = {"DEPLOYMENT": "spleen", "MODEL_DIR": "/model", "PORT": "8001"}
    assert spec.environment == told | {"HOME": "/tmp", "USER": "nonroot"}
    assert spec.publication is None
    assert [(mount.target, mount.read_only, mount.kept) for mount in spec.mounts] == [("/model", True, True)]
    assert (spec.gpu_uuid, spec.memory_limit_bytes, spec.shared_memory_bytes) == (None, 1000, 400)


def test_one_that_runs_tasks_sees_their_inputs_read_only_and_writes_their_outputs() -> None:
    spec = decide(assignment(serving={"serves_tasks": True}), model=None)
    assert [(mount.folder, mount.target, mount.read_only, mount.kept) for mount in spec.mounts] == [
        (FOLDER.inputs, "/tasks/input", True, False),
        (FOLDER.outputs, "/tasks/output", False, False),
        (FOLDER.progress, "/tasks/progress", False, False),
    ]


def test_a_gpu_is_given_to_models_that_ask_for_one() -> None:
    assert decide(assignment(use_gpu=True)).gpu_uuid == "GPU-1"


def test_the_names_of_models_are_those_of_the_description_or_the_id() -> None:
    assert model_names(assignment()) == ["spleen"]
    assert model_names(assignment(serving={"model_names": ["a", "b"]})) == ["a", "b"]


def test_a_replica_that_is_lent_is_not_withdrawn() -> None:
    hosted = ReadyReplicas()
    with pytest.raises(ReplicaGone), hosted.borrow(UID):
        pass
    replica = ReadyReplica(RunKey(UID, 1, RunKind.REPLICA), "10.0.0.2:8001", FOLDER)
    hosted.add(replica)
    with hosted.borrow(UID) as lent:
        assert lent is replica
        assert not hosted.withdraw(UID)
    assert hosted.withdraw(UID)
    with pytest.raises(ReplicaGone), hosted.borrow(UID):
        pass


def test_a_replica_that_is_no_more_is_lent_no_more_whoever_has_it() -> None:
    hosted = ReadyReplicas()
    hosted.add(ReadyReplica(RunKey(UID, 1, RunKind.REPLICA), "10.0.0.2:8001", FOLDER))
    with hosted.borrow(UID):
        hosted.drop(UID)
        with pytest.raises(ReplicaGone), hosted.borrow(UID):
            pass


REPLICA, OTHER, TASK = RunKey(UID, 1, RunKind.REPLICA), RunKey(UID, 2, RunKind.REPLICA), RunKey(UID, 1)


class Waiting(Exception):
    """It would have to wait."""


def refuse() -> None:
    raise Waiting


@pytest.mark.parametrize(
    ("first", "second", "passes"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_two_are_on_the_gpu_only_where_both_share_it(first: bool, second: bool, passes: bool) -> None:
    gate = GpuGate()
    gate.enter(REPLICA, shares=first, check=refuse)
    # Again is no second.
    gate.enter(REPLICA, shares=first, check=refuse)
    if passes:
        gate.enter(OTHER, shares=second, check=refuse)
    else:
        with pytest.raises(Waiting):
            gate.enter(OTHER, shares=second, check=refuse)
        gate.leave(REPLICA)
        gate.enter(OTHER, shares=second, check=refuse)


def test_whoever_waits_for_the_gpu_gets_it_when_the_other_left() -> None:
    gate, waits = GpuGate(), threading.Event()
    gate.enter(REPLICA, shares=False, check=refuse)
    thread = threading.Thread(target=lambda: gate.enter(TASK, shares=True, check=waits.set))
    thread.start()
    assert waits.wait(60)
    gate.leave(REPLICA)
    thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(Waiting):
        gate.enter(REPLICA, shares=False, check=refuse)


def test_a_tasks_folders_in_a_replica_come_and_go(tmp_path: Path) -> None:
    work = WorkDir(tmp_path, "ada")
    folder = work.open_replica(REPLICA)
    folder.open_task("one")
    assert [oct(path.stat().st_mode & 0o777) for path in (folder.inputs / "one", folder.outputs / "one")] == [
        "0o755",
        "0o777",
    ]
    folder.open_task("two")
    (folder.outputs / "one" / "deep").mkdir()
    folder.close_task("one")
    assert [path.name for path in (*folder.inputs.iterdir(), *folder.outputs.iterdir())] == ["two", "two"]
    folder.close_tasks()
    assert [*folder.inputs.iterdir(), *folder.outputs.iterdir()] == []
    assert work.replicas() == [REPLICA]
    work.remove_replica(REPLICA)
    assert work.replicas() == []


def test_a_link_that_a_replica_put_in_place_of_an_output_is_not_followed(tmp_path: Path) -> None:
    folder = WorkDir(tmp_path / "work", "ada").open_replica(REPLICA)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "kept.txt").touch()
    (folder.outputs / "one").symlink_to(secret)
    folder.close_task("one")
    assert (secret / "kept.txt").exists()
