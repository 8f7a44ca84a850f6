"""A private API, a Docker network and a consumer in a thread, for tests of replicas: real ones."""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import docker
import grpc
import httpx

from contract.deployments import DeploymentView, ReplicaAssignment, ReplicaStatus, ReplicaView
from contract.schemas import TaskView
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engines import LABEL
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.replicas.ready import ReadyReplicas
from job_consumer.replicas.replica import Replica
from job_consumer.service import ConsumerOptions, run_consumer
from job_consumer.settings import Credential
from job_consumer.workspace import WorkDir
from tests.engine_client import engine_client
from tests.integration.engine_harness import MIB
from tests.running_api import RunningApi
from tests.services import require_rabbitmq
from tests.waiting import wait_until
from tests.zips import make_zip

BACKEND = Path(__file__).parent / "replica_backend"
PORT = 9100
GPU = "GPU-00000000-0000-0000-0000-00000000000a"
LIMITS = Limits(256 * MIB, None, 128, 16 * MIB, 16 * MIB, MIB)
OF_THE_REGISTRATION = (
    "memory_limit_bytes",
    "shared_memory_bytes",
    "temporary_bytes",
    "pids_limit",
    "cpus",
    "time_limit_s",
)
ZIP = {"Content-Type": "application/zip"}


def backend_image() -> str:
    """The test model, built once for each content."""
    digest = sha256(b"".join(path.read_bytes() for path in sorted(BACKEND.iterdir()) if path.is_file())).hexdigest()
    tag = f"is-replica:{digest[:16]}"
    client = docker.from_env()
    try:
        if not client.images.list(name=tag):
            client.images.build(path=str(BACKEND), tag=tag, rm=True, forcerm=True)
    finally:
        client.close()
    return tag


@contextmanager
def replica_network() -> Iterator[str]:
    """A network without a way outside, of this test alone."""
    name = f"is-test-{secrets.token_hex(4)}"
    client = docker.from_env()
    try:
        network = client.networks.create(name, driver="bridge", internal=True)
        yield name
        network.remove()
    finally:
        client.close()


@dataclass
class ConsumerThread:
    """A consumer that runs in this process; `stop` is what a signal does to one."""

    thread: threading.Thread
    stopping: threading.Event
    wake: Callable[[], None]

    def stop(self) -> None:
        self.stopping.set()
        self.wake()
        self.thread.join(60)
        assert not self.thread.is_alive(), "the consumer does not stop"


@dataclass
class ReplicaHarness:
    """What a test of replicas needs. Its consumer's name, network and work directory are its own."""

    api: RunningApi
    network: str
    work_dir: Path
    http: httpx.Client
    docker: docker.APIClient
    image: str
    name: str = field(default_factory=lambda: f"consumer-{secrets.token_hex(4)}")

    def register(
        self, model: str = "warm", *, use_gpu: bool = False, image: str | None = None, **behaviour: Any
    ) -> None:
        """A model of the test image that behaves as its zip says."""
        query = {"human_readable_id": model, "container_tag": image or self.image, "use_gpu": use_gpu}
        query |= {"model_available": True, "pull_policy": "never", "replace": True}
        query |= {name: behaviour.pop(name) for name in OF_THE_REGISTRATION if name in behaviour}
        body = make_zip({"behaviour.json": json.dumps(behaviour).encode()})
        self.http.post("/api/models/", params=query, content=body, headers=ZIP).raise_for_status()

    def deploy(self, model: str = "warm", **serving: Any) -> None:
        body = {"port": PORT, "replicas_min": 1, **serving}
        self.http.post(f"/api/models/{model}/deployment", json=body).raise_for_status()

    def undeploy(self, model: str = "warm") -> None:
        self.http.delete(f"/api/models/{model}/deployment").raise_for_status()

    def view(self, model: str = "warm") -> DeploymentView:
        answer = self.http.get(f"/api/models/{model}/deployment")
        answer.raise_for_status()
        return DeploymentView.model_validate(answer.json())

    def replica(self, status: ReplicaStatus = ReplicaStatus.READY, model: str = "warm") -> ReplicaView:
        """The newest replica of that status, once there is one."""
        found: list[ReplicaView] = []

        def look() -> bool:
            found[:] = [replica for replica in self.view(model).replicas if replica.status is status]
            return bool(found)

        wait_until(look)
        return max(found, key=lambda replica: replica.created_at)

    def submit(self, model: str = "warm", *, priority: int = 0, **do: Any) -> str:
        """A task of which the test model does as told."""
        body = make_zip({"do.json": json.dumps(do).encode(), "scan.txt": b"42\n"})
        query = {"human_readable_id": model, "priority": priority}
        answer = self.http.post("/api/tasks/", params=query, content=body, headers=ZIP)
        answer.raise_for_status()
        uid: str = answer.json()
        return uid

    def task(self, uid: str) -> TaskView:
        answer = self.http.get(f"/api/tasks/{uid}/status")
        answer.raise_for_status()
        return TaskView.model_validate(answer.json())

    def containers(self, kind: str = "replica") -> list[dict[str, Any]]:
        """This consumer's containers of that kind, whatever their state."""
        labels = [f"{LABEL}.consumer={self.name}", f"{LABEL}.{kind}"]
        found: list[dict[str, Any]] = self.docker.containers(all=True, filters={"label": labels})
        return found

    def call(self, replica: ReplicaView, method: str, request: bytes = b"") -> bytes:
        """What `tests.Echo` of the test model answers."""
        assert replica.address is not None
        with grpc.insecure_channel(replica.address) as channel:
            answer: bytes = channel.unary_unary(f"/tests.Echo/{method}")(request, timeout=60)
            return answer

    def consumer_environment(self) -> dict[str, str]:
        """For a consumer as a process of its own. It hears no bell: those of this API do not pass RabbitMQ."""
        broker = urlsplit(require_rabbitmq())
        return {
            "SERVICE_TOKEN": self.api.token,
            "PRIVATE_API_URL": self.api.url,
            "RABBIT_HOSTNAME": broker.hostname or "127.0.0.1",
            "RABBIT_PORT": str(broker.port or 5672),
            "RABBIT_USER": unquote(broker.username or ""),
            "RABBIT_PASSWORD": unquote(broker.password or ""),
            "RABBIT_VHOST": unquote(broker.path[1:]) or "/",
            "CONSUMER_NAME": self.name,
            "WORK_DIR": str(self.work_dir),
            "MEMORY_LIMIT_BYTES": str(256 * MIB),
            "REPLICA_NETWORK": self.network,
        }

    @contextmanager
    def context(self) -> Iterator[ConsumerContext]:
        """What a consumer's attempts and replicas share, without its loops."""
        engine = DockerEngine(work_dir=self.work_dir, work_volume=None)
        with self.api.consumer() as api:
            yield ConsumerContext(
                credential=Credential("SERVICE_TOKEN", self.api.token),
                sandbox=Sandbox(self.name, LIMITS, gpu_uuid=GPU, network=self.network),
                api=api,
                engine=engine,
                work=WorkDir(self.work_dir, self.name),
                stopping=threading.Event(),
            )
        engine.close()

    @contextmanager
    def consumer(
        self,
        *,
        gpu_uuid: str | None = None,
        slots: int = 8,
        engine_url: str | None = None,
        guard_image: str | None = None,
        **changes: Any,
    ) -> Iterator[ConsumerThread]:
        """A consumer in a thread, stopped at the end of the block. Calls of an `engine_url` end after 5 s."""
        limit_s = 5 if engine_url else 60
        engine = DockerEngine(
            work_dir=self.work_dir,
            work_volume=None,
            base_url=engine_url,
            call_timeout_s=limit_s,
            guard_image=guard_image,
        )
        stopping = threading.Event()
        options = ConsumerOptions(
            api_url=self.api.url,
            credential=Credential("SERVICE_TOKEN", self.api.token),
            consumer=self.name,
            work_dir=self.work_dir,
            limits=LIMITS,
            gpu_uuid=gpu_uuid,
            replica_network=self.network,
            replica_slots=slots,
        )
        thread = threading.Thread(
            target=run_consumer,
            args=(replace(options, **changes), self.api.broker, engine, stopping),
            kwargs={"replica_engine": engine},
        )
        thread.start()
        running = ConsumerThread(thread, stopping, self.api.broker.wake)
        try:
            yield running
        finally:
            running.stop()
            engine.close()


def hosted(context: ConsumerContext, assignment: ReplicaAssignment) -> Replica:
    """A replica at a consumer that has no loops."""
    assert isinstance(context.engine, DockerEngine)
    return Replica(context, context.engine, ReadyReplicas(), assignment)


@contextmanager
def replica_harness(api: RunningApi, work_dir: Path) -> Iterator[ReplicaHarness]:
    """A harness over a private API; it leaves no container, volume or network."""
    with ExitStack() as stack:
        network = stack.enter_context(replica_network())
        http = stack.enter_context(api.client())
        client = engine_client()
        stack.callback(client.close)
        harness = ReplicaHarness(api, network, work_dir, http, client, backend_image())
        try:
            yield harness
        finally:
            for container in client.containers(all=True, filters={"label": f"{LABEL}.consumer={harness.name}"}):
                client.remove_container(container["Id"], force=True, v=True)
            for volume in client.volumes()["Volumes"] or []:
                if str(work_dir) in str(volume.get("Options") or {}):
                    client.remove_volume(volume["Name"], force=True)
