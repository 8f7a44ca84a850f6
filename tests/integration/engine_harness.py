"""What the engine tests share: runs of a shell script, made alike for every engine and cleaned up after each test."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import docker

from job_consumer.engines import LABEL, ContainerSpec, Engine, ExitState, Mount, ReplicaEngine, RunKey, RunKind
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.engines.process.walls import Walls, find_walls
from job_consumer.networks import NetworkAccess, Publication
from job_consumer.tasks.progress import read_progress
from job_consumer.workspace import WorkDir
from tests.integration.guard_image import guard_image
from tests.waiting import wait_until

END_S = 60.0
MIB = 1024**2


@dataclass
class Harness:
    """One engine over a fresh work directory."""

    kind: str
    work: WorkDir
    open_engine: Callable[[], Engine]
    image_for: Callable[[str], str]
    engine: Engine = field(init=False)
    consumer: str = field(default_factory=lambda: f"consumer-{secrets.token_hex(4)}")
    keys: list[RunKey] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = self.open_engine()

    @property
    def replica_engine(self) -> ReplicaEngine:
        """The engine, where it can host replicas."""
        assert isinstance(self.engine, DockerEngine)
        return self.engine

    def spec(self, script: str, **changes: Any) -> ContainerSpec:
        """A run of the script, with its folders; not started."""
        key = RunKey(secrets.token_hex(32), 1)
        self.keys.append(key)
        workspace = self.work.open_workspace(key)
        (workspace.input_dir / "scan.txt").write_text("42\n")
        sha256 = hashlib.sha256(script.encode()).hexdigest()
        model = self.work.open_model(sha256, lambda folder: fill_model(folder, script))
        spec = ContainerSpec(
            key=key,
            consumer=self.consumer,
            image=self.image_for(script),
            isolation="strict",
            user="65532:65532",
            environment={
                "INPUT_DIR": "/input",
                "OUTPUT_DIR": "/output",
                "MODEL_DIR": "/model",
                "PROGRESS_FILE": "/progress/latest",
            },
            mounts=(
                Mount(f"{key.name}-input", workspace.input_dir, "/input", read_only=True),
                Mount(f"{key.name}-output", workspace.output_dir, "/output", read_only=False),
                Mount(f"{key.name}-progress", workspace.progress_dir, "/progress", read_only=False),
                Mount(f"is-model-{sha256}", model.folder, "/model", read_only=True, kept=True),
            ),
            gpu_uuid=None,
            memory_limit_bytes=64 * MIB,
            cpu_limit=1.0,
            pids_limit=64,
            shared_memory_bytes=16 * MIB,
            temporary_bytes=8 * MIB,
            log_limit_bytes=MIB,
        )
        return replace(spec, **changes)

    def start(self, script: str, **changes: Any) -> RunKey:
        """Start a run of the script."""
        spec = self.spec(script, **changes)
        self.engine.start(spec)
        return spec.key

    def start_replica(
        self, script: str, access: NetworkAccess, publication: Publication | None = None, **changes: Any
    ) -> RunKey:
        """Start a run of the script as replicas are: on a network, without a task's folders."""
        spec = self.spec(script, network=access, publication=publication, **changes)
        key = replace(spec.key, kind=RunKind.REPLICA)
        self.keys.append(key)
        self.engine.start(replace(spec, key=key, mounts=tuple(mount for mount in spec.mounts if mount.kept)))
        return key

    def run(self, script: str, **changes: Any) -> tuple[RunKey, ExitState]:
        """Run the script to its end."""
        key = self.start(script, **changes)
        return key, self.end_of(key)

    def end_of(self, key: RunKey) -> ExitState:
        """How the run ended."""
        state = self.engine.wait(key, END_S)
        assert state is not None, "the run did not end"
        return state

    def log_of(self, key: RunKey) -> str:
        """The whole log of a run, which must end."""
        return b"".join(self.engine.follow_log(key, Event())).decode()

    def output(self, key: RunKey, name: str) -> Path:
        """A file of /output."""
        return self.work.workspace(key).output_dir / name

    def progress_of(self, key: RunKey) -> float | None:
        """How far the run says it is, in its file."""
        progress = read_progress(self.work.workspace(key).progress_dir)
        return progress and progress.fraction

    def wait_for_output(self, key: RunKey, name: str) -> str:
        """The content of a file of /output, once it has any."""
        path = self.output(key, name)
        wait_until(lambda: path.exists() and path.stat().st_size > 0)
        return path.read_text()


def fill_model(folder: Path, script: str) -> None:
    """A model archive with the script as its program."""
    program = folder / "run.sh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (folder / "weights.txt").write_text("weights\n")


@contextmanager
def docker_harness(root: Path, client: docker.APIClient, *, base_url: str | None = None) -> Iterator[Harness]:
    """A harness of the Docker engine, or of what stands before it at `base_url`; leaves no container and no volume."""
    work = WorkDir(root, "consumer")
    harness = Harness(
        "docker",
        work,
        lambda: DockerEngine(work_dir=work.root, work_volume=None, base_url=base_url, guard_image=guard_image()),
        lambda script: build_image(client, f"CMD {json.dumps(['/bin/sh', '-c', script])}"),
    )
    try:
        yield harness
        for key in harness.keys:
            harness.engine.remove(key)
        assert leftovers(client, harness.keys) == []
    finally:
        harness.engine.close()
        for container in client.containers(all=True, filters={"label": f"{LABEL}.consumer={harness.consumer}"}):
            client.remove_container(container["Id"], force=True, v=True)
        for volume in client.volumes(filters={"label": LABEL + ".kept"})["Volumes"] or []:
            if volume["Options"]["device"].startswith(str(work.root)):
                client.remove_volume(volume["Name"])


@cache
def machine_walls() -> Walls:
    """What confines programs on this machine."""
    return find_walls()


@contextmanager
def process_harness(
    root: Path, walls: Walls | None = None, *, engine: ProcessEngine | None = None
) -> Iterator[Harness]:
    """A harness of the process engine, with all walls of this machine or these, or of one that works in `root`.

    It leaves no process and no file.
    """
    work = WorkDir(root, "consumer")

    def open_engine() -> ProcessEngine:
        return engine or ProcessEngine(work_dir=work.root, walls=walls or machine_walls())

    harness = Harness("process", work, open_engine, lambda _script: "process:run.sh")
    try:
        yield harness
    finally:
        for key in harness.keys:
            harness.engine.remove(key)
        harness.engine.close()
        assert list((root / "runs").glob("*")) == []


def build_image(client: docker.APIClient, lines: str, base: str = "FROM busybox:1.37") -> str:
    """An image with these lines in its Dockerfile after `base`, built once for each content."""
    dockerfile = f"{base}\n{lines}\n".encode()
    tag = f"is-test:{hashlib.sha256(dockerfile).hexdigest()[:16]}"
    if not client.images(name=tag, quiet=True):
        for line in client.build(fileobj=BytesIO(dockerfile), tag=tag, rm=True, forcerm=True, decode=True):
            assert "error" not in line, line
    return tag


@contextmanager
def network_for_publishing(client: docker.APIClient) -> Iterator[str]:
    """As the documentation makes it."""
    name = f"is-test-{secrets.token_hex(4)}"
    options = {"enable_ip_masquerade": "false", "enable_icc": "false"}
    options = {f"com.docker.network.bridge.{option}": value for option, value in options.items()}
    client.create_network(name, driver="bridge", options=options)
    try:
        yield name
    finally:
        # After a failure its containers are still there.
        for container in client.inspect_network(name)["Containers"]:
            client.remove_container(container, force=True, v=True)
        client.remove_network(name)


def leftovers(client: docker.APIClient, keys: list[RunKey]) -> list[str]:
    """Containers and volumes that carry a label of these runs."""
    found = []
    for key in keys:
        filters = {"label": f"{LABEL}.{key.kind}={key.uid}"}
        found += [container["Id"] for container in client.containers(all=True, filters=filters)]
        found += [volume["Name"] for volume in client.volumes(filters=filters)["Volumes"] or []]
    return found
