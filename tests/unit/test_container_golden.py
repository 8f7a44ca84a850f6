"""What a container looks like, decided without Docker: each kind of task and replica against its golden files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from contract.deployments import ReplicaAssignment
from contract.schemas import Assignment
from job_consumer.container_spec import Limits, Sandbox, decide_container
from job_consumer.engines import ContainerSpec, RunKey, RunKind
from job_consumer.engines.docker.profile import EngineHost, container_config
from job_consumer.replicas.spec import decide_replica
from job_consumer.workspace import ModelFolder, ReplicaFolder, Workspace
from tests.golden import UPDATE, check_golden

GOLDEN = Path(__file__).parent / "golden"
UID = "ab" * 32
MIB = 1024**2
WORK = Path("/srv/consumer")
ROOT = WORK / "attempts" / "ada" / f"{UID}-3"
WORKSPACE = Workspace(ROOT, ROOT / "input", ROOT / "output")
FOLDER = ReplicaFolder(WORK / "replicas" / "ada" / f"{UID}-3")
MODEL = ModelFolder("cd" * 32, WORK / "models" / ("cd" * 32))
SANDBOX = Sandbox(
    consumer="ada",
    server="5e12ab34",
    limits=Limits(
        memory_bytes=512 * MIB,
        cpus=2.5,
        pids=128,
        shared_memory_bytes=64 * MIB,
        temporary_bytes=32 * MIB,
        log_bytes=8 * MIB,
    ),
    gpu_uuid="GPU-00000000-0000-0000-0000-00000000000a",
    network="replicas",
)
OWN_USER = replace(SANDBOX, own_user="1000:1001")
HOST = EngineHost(
    work_dir=WORK,
    work_root=Path("/var/lib/docker/volumes/work/_data"),
    cpus=8,
    has_init=True,
    # Whatever it is: tests/unit/test_docker_seccomp.py looks at it.
    seccomp="{the profile}",
)

COMMON: dict[str, Any] = {
    "uid": UID,
    "fence": 3,
    "lease_s": 60,
    "human_readable_id": "spleen",
    "model_version": 2,
    "container_tag": "registry.example.org/spleen:2",
    "use_gpu": False,
    "pull_policy": "missing",
    "isolation": "strict",
    "memory_limit_bytes": None,
    "max_unpacked_bytes": 1000,
    "model_archive": None,
}


def task(sandbox: Sandbox = SANDBOX, model: ModelFolder | None = None, **changes: Any) -> ContainerSpec:
    own = {
        "attempt": 1,
        "time_limit_s": 60,
        "max_output_bytes": 1000,
        "input": {"sha256": "0" * 64, "size_bytes": 1},
    }
    given = Assignment.model_validate(COMMON | own | changes)
    return decide_container(RunKey(UID, 3, server=sandbox.server), given, sandbox, WORKSPACE, model)


def replica(
    sandbox: Sandbox = SANDBOX, *, serves_tasks: bool = False, use_gpu: bool = False, **changes: Any
) -> ContainerSpec:
    own = {
        "use_gpu": use_gpu,
        "serving": {"port": 8001, "serves_tasks": serves_tasks},
        "environment": {"DEPLOYMENT": "spleen"},
    }
    key = RunKey(UID, 3, RunKind.REPLICA, sandbox.server)
    return decide_replica(key, ReplicaAssignment.model_validate(COMMON | own | changes), sandbox, FOLDER, MODEL)


LIMITS = {"shared_memory_bytes": 256 * MIB, "temporary_bytes": 128 * MIB, "pids_limit": 1000, "cpus": 1.5}


@dataclass(frozen=True)
class Case:
    """One kind of container."""

    name: str
    decide: Callable[[], ContainerSpec]


CASES = [
    Case("strict", task),
    Case("compatible", lambda: task(isolation="compatible")),
    Case("gpu", lambda: task(use_gpu=True)),
    Case("model", lambda: task(model=MODEL)),
    Case("own-user", lambda: task(OWN_USER)),
    Case("own-user-compatible", lambda: task(OWN_USER, isolation="compatible")),
    Case("memory-of-the-model", lambda: task(memory_limit_bytes=16 * MIB)),
    Case("limits-of-the-model", lambda: task(**LIMITS)),
    Case("all", lambda: task(OWN_USER, MODEL, use_gpu=True, memory_limit_bytes=4096 * MIB)),
    Case("runtime", lambda: task(runtime="runsc")),
    Case("replica", replica),
    Case("replica-limits-of-the-model", lambda: replica(**LIMITS)),
    Case("replica-gpu-published", lambda: replica(replace(SANDBOX, publish_address="192.0.2.7"), use_gpu=True)),
    Case("replica-tasks", lambda: replica(serves_tasks=True)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_decided_to_run_is_as_in_the_golden_file(case: Case) -> None:
    check_golden(GOLDEN / "container_spec" / f"{case.name}.json", case.decide())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_engine_is_asked_to_create_is_as_in_the_golden_file(case: Case) -> None:
    check_golden(GOLDEN / "container_config" / f"{case.name}.json", container_config(case.decide(), HOST))


def test_every_golden_file_belongs_to_a_case() -> None:
    expected = {f"{case.name}.json" for case in CASES}
    for folder in ("container_spec", "container_config"):
        assert {path.name for path in (GOLDEN / folder).iterdir()} == expected


def test_a_golden_file_is_written_only_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "golden" / "case.json"
    monkeypatch.delenv(UPDATE, raising=False)
    with pytest.raises(AssertionError, match="is missing; UPDATE_GOLDEN=1 writes it"):
        check_golden(path, {"CapDrop": ["ALL"]})
    assert not path.exists()
    monkeypatch.setenv(UPDATE, "1")
    check_golden(path, {"CapDrop": ["ALL"]})
    monkeypatch.setenv(UPDATE, "0")
    check_golden(path, {"CapDrop": ["ALL"]})
    written = path.read_text()
    with pytest.raises(AssertionError, match="differs; if that is wanted, UPDATE_GOLDEN=1 writes it"):
        check_golden(path, {"CapDrop": []})
    assert path.read_text() == written
