"""A server for storms: both APIs and two consumers as processes, over a database, a broker and an Engine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx

from tests.e2e.processes import Process
from tests.e2e.systems import System, services_system

SECOND = "-second"


@dataclass
class Stack:
    """The server, and what it leaves."""

    system: System
    processes: list[Process]
    """Both APIs and both consumers."""
    consumers: list[str]
    folder: Path
    engine: str | None

    def running(self) -> list[str]:
        """The containers that run tasks now."""
        return self._containers(status="running")

    def left(self) -> list[str]:
        """Containers, volumes and folders of runs."""
        client = docker.APIClient(base_url=self.engine)
        try:
            volumes = [
                volume["Name"]
                for name in self.consumers
                for volume in client.volumes(filters={"label": _label(name)})["Volumes"] or []
            ]
        finally:
            client.close()
        folders = [str(path) for path in self.folder.glob("work*/attempts/*/*")]
        return self._containers() + [name for name in volumes if not name.startswith("is-model-")] + folders

    def add_model(self, image: str) -> str:
        """Register an image; returns its id."""
        query = {"container_tag": image, "human_readable_id": "storm", "pull_policy": "never"}
        answer = httpx.post(f"{self.system.url}/api/models/", params=query, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        return query["human_readable_id"]

    def _containers(self, **filters: str) -> list[str]:
        client = docker.APIClient(base_url=self.engine)
        try:
            return [
                container["Id"]
                for name in self.consumers
                for container in client.containers(all=True, filters={"label": _label(name)} | filters)
            ]
        finally:
            client.close()


@contextmanager
def storm_stack(
    folder: Path,
    database_url: str,
    *,
    broker_port: int | None = None,
    engine: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Start it with `extra` variables; its consumers use the Engine at `engine` instead of this machine's own."""
    made: list[Process] = []

    def make(service: str, command: list[str], environment: Mapping[str, str], log: Path) -> Process:
        variables = {**environment, **(extra or {})}
        if engine and service == "job_consumer":
            variables["DOCKER_HOST"] = engine
        made.append(Process(service, command, variables, log))
        return made[-1]

    with services_system(folder, database_url, broker_port=broker_port, process=make) as system:
        first = made[-1]
        name = first.environment["CONSUMER_NAME"]
        variables = {
            **first.environment,
            "CONSUMER_NAME": name + SECOND,
            "WORK_DIR": str(folder / "work-second"),
        }
        second = Process("second consumer", first.command, variables, folder / "second.log")
        second.start()
        try:
            yield Stack(system, [*made, second], [name, name + SECOND], folder, engine)
        finally:
            second.end()
            _remove(engine, [name, name + SECOND])


def _remove(engine: str | None, consumers: list[str]) -> None:
    try:
        client = docker.APIClient(base_url=engine)
    except docker.errors.DockerException:
        # Whoever made the host removes it with all that is on it.
        return
    try:
        for name in consumers:
            for container in client.containers(all=True, filters={"label": _label(name)}):
                client.remove_container(container["Id"], force=True)
            for volume in client.volumes(filters={"label": _label(name)})["Volumes"] or []:
                client.remove_volume(volume["Name"], force=True)
    finally:
        client.close()


def _label(consumer: str) -> str:
    return f"inference-server.consumer={consumer}"
