"""Runs containers on a Docker Engine. With the other `docker_*` modules the only place that knows docker-py.

The run's folders are handed over as bind-backed volumes of the local driver, written and read by the consumer itself:
the Engine's archive calls never touch a container of foreign code (CVE-2026-41567).
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import Any, Literal

import docker
from docker.errors import APIError, NotFound
from docker.utils import kwargs_from_env

from job_consumer.docker_errors import engine_errors, is_read_timeout, start_error
from job_consumer.docker_images import ensure_image
from job_consumer.docker_log import open_log, read_log, read_tail
from job_consumer.docker_profile import Host, consumer_label, container_config, reached_at, run_key, run_labels
from job_consumer.engine import ContainerSpec, EngineUnavailable, ExitState, Network, RunKey, RunState, RunVanished

logger = logging.getLogger(__name__)

WAIT_SLICE_S = 20.0
"""A wait whose answer was lost is noticed after so long."""
CONFLICT_PAUSE_S = 0.05
CONFLICT_LIMIT_S = 30.0
PULL_SILENCE_S = 600.0
"""A pull that says nothing for so long is given up. Unpacking one large layer is the longest silence."""
WaitCondition = Literal["not-running", "next-exit"]
ENDED = ("exited", "dead")


class _Client(docker.APIClient):
    """docker-py pulls without any time limit; this one limits how long the Engine may stay silent."""

    def send(self, request: Any, **kwargs: Any) -> Any:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = PULL_SILENCE_S
        return super().send(request, **kwargs)


class DockerEngine:
    """One Docker Engine; connects at the first call, so it may be down when this is made.

    `work_volume` names the volume that holds `work_dir` where the consumer is a container itself; None where the Engine
    sees `work_dir` under the same path. `base_url` None means what `DOCKER_HOST` says, else the local socket.
    """

    def __init__(
        self, *, work_dir: Path, work_volume: str | None, call_timeout_s: float = 60, base_url: str | None = None
    ) -> None:
        self._work_dir = work_dir.absolute()
        self._work_volume = work_volume
        self._call_timeout_s = call_timeout_s
        self._base_url = base_url
        self._lock = Lock()
        self._closing = Event()
        self._connected: docker.APIClient | None = None
        self._host: Host | None = None

    def close(self) -> None:
        """Cut pauses short and close the connections."""
        self._closing.set()
        with self._lock:
            if self._connected is not None:
                self._connected.close()

    def check(self) -> str:
        """Asks for the version."""
        with engine_errors():
            version = self._client().version()
        return f"Docker Engine {version['Version']} (API {version['ApiVersion']})"

    def ensure_image(self, image: str, pull_policy: str) -> None:
        """A registry's refusal to give an image counts as its absence."""
        with engine_errors():
            ensure_image(self._client(), image, pull_policy, self._closing)

    def start(self, spec: ContainerSpec) -> None:
        """The container's name decides: of two creations one is a conflict."""
        with engine_errors():
            client = self._client()
            if self._create(client, spec) != "created":
                return
            try:
                # Nothing happens where another thread started it meanwhile.
                client.start(spec.key.name)
            except APIError as error:
                raise start_error(error) from error

    def find(self, consumer: str) -> list[tuple[RunKey, RunState]]:
        """By label; what carries our label and names no run is left alone."""
        with engine_errors():
            label = "=".join(consumer_label(consumer))
            containers = self._client().containers(all=True, filters={"label": label})
        found = []
        for container in containers:
            if (key := run_key(container["Labels"])) is not None:
                found.append((key, _run_state(container["State"])))
            else:
                logger.warning("container %s carries our label but names no run", container["Id"])
        return found

    def wait(self, key: RunKey, timeout_s: float) -> ExitState | None:
        """The wait call holds, the inspection decides: only that one tells of a kill for memory."""
        deadline = monotonic() + timeout_s
        condition: WaitCondition = "not-running"
        slice_s = WAIT_SLICE_S
        while True:
            left_s = deadline - monotonic()
            with engine_errors():
                if left_s > 0:
                    self._hold(key, min(left_s, slice_s), condition)
                state = self._inspect(key)
            if state["Status"] in ENDED:
                return ExitState(exit_code=state["ExitCode"], out_of_memory=state["OOMKilled"])
            if left_s <= 0:
                return None
            if state["Status"] == "created":
                # It is not running, so the first condition would answer at once, again and again.
                condition, slice_s = "next-exit", 1.0

    def follow_log(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """A log larger than its limit has lost its beginning."""
        with engine_errors():
            try:
                response = open_log(self._client(), key.name)
            except APIError as error:
                if error.status_code in (404, 409):
                    raise RunVanished(key.name) from error
                raise
            yield from read_log(response, stop)

    def log_tail(self, key: RunKey, max_bytes: int) -> bytes:
        """Read without following."""
        with engine_errors():
            try:
                return read_tail(self._client(), key.name, max_bytes)
            except APIError as error:
                if error.status_code in (404, 409):
                    raise RunVanished(key.name) from error
                raise

    def find_network(self, name: str) -> Network | None:
        """An attachable overlay network counts once this host takes part in it."""
        with engine_errors():
            try:
                return Network(is_internal=self._client().inspect_network(name)["Internal"])
            except NotFound:
                return None

    def make_network(self, name: str) -> None:
        """Make a bridge network without a way outside, unless there is one of this name."""
        with engine_errors():
            if self.find_network(name) is None:
                self._client().create_network(name, driver="bridge", internal=True, check_duplicate=True)

    def network_host(self, name: str) -> str | None:
        """The Engine's host as the containers of a bridge network see it; None where there is no such address."""
        with engine_errors():
            settings = self._client().inspect_network(name)["IPAM"]["Config"] or []
        return next((each["Gateway"] for each in settings if each.get("Gateway")), None)

    def address(self, key: RunKey, port: int) -> str | None:
        """A run has one network, and no address any more once it ended."""
        with engine_errors():
            try:
                container = self._client().inspect_container(key.name)
            except NotFound as error:
                raise RunVanished(key.name) from error
        return reached_at(container, port)

    def stop(self, key: RunKey, grace_s: float) -> None:
        """TERM is what the image calls its stop signal."""
        with engine_errors():
            try:
                self._client().stop(key.name, timeout=math.ceil(grace_s))
            except NotFound:
                return

    def remove(self, key: RunKey) -> None:
        """Kills what runs."""
        with engine_errors():
            client = self._client()
            # v=True takes the nameless volumes that an image declares; ours have names.
            self._remove(partial(client.remove_container, key.name, v=True, force=True))
            labels = [f"{name}={value}" for name, value in run_labels(key).items()]
            for volume in client.volumes(filters={"label": labels})["Volumes"] or []:
                self._remove(partial(client.remove_volume, volume["Name"]))

    def _create(self, client: docker.APIClient, spec: ContainerSpec) -> str:
        """Make the container unless it is there; how far it got."""
        config = container_config(spec, self._describe_host())
        deadline = monotonic() + CONFLICT_LIMIT_S
        while True:
            try:
                client.create_container_from_config(config, spec.key.name)  # type: ignore[no-untyped-call]
            except APIError as error:
                if error.status_code != 409:
                    raise start_error(error) from error
                # The Engine takes the name first and shows the container later, and the reverse at removal.
                with suppress(RunVanished):
                    return str(self._inspect(spec.key)["Status"])
                if monotonic() > deadline or self._closing.wait(CONFLICT_PAUSE_S):
                    raise
            else:
                return "created"

    def _remove(self, call: Callable[[], object]) -> None:
        """Conflicts (someone else removes it right now, a volume is still held) pass by themselves."""
        deadline = monotonic() + CONFLICT_LIMIT_S
        while True:
            try:
                call()
            except NotFound:
                return
            except APIError as error:
                if error.status_code != 409 or monotonic() > deadline or self._closing.wait(CONFLICT_PAUSE_S):
                    raise
            else:
                return

    def _hold(self, key: RunKey, timeout_s: float, condition: WaitCondition) -> None:
        try:
            self._client().wait(key.name, timeout=timeout_s, condition=condition)  # type: ignore[arg-type]
        except NotFound as error:
            raise RunVanished(key.name) from error
        except OSError as error:
            if not is_read_timeout(error):
                raise

    def _inspect(self, key: RunKey) -> dict[str, Any]:
        """The container's `State`."""
        try:
            state: dict[str, Any] = self._client().inspect_container(key.name)["State"]
        except NotFound as error:
            raise RunVanished(key.name) from error
        if state["Status"] == "removing":
            raise RunVanished(key.name)
        return state

    def _client(self) -> docker.APIClient:
        with self._lock:
            if self._connected is None:
                settings = {"base_url": self._base_url} if self._base_url else kwargs_from_env()
                # The newest version both sides speak: old ones are refused by new Engines.
                self._connected = _Client(version="auto", timeout=math.ceil(self._call_timeout_s), **settings)
            return self._connected

    def _describe_host(self) -> Host:
        """What no call needs to ask twice."""
        if self._host is None:
            client = self._client()
            info = client.info()
            # The Engine names its init also where the program is missing; only its version tells.
            has_init = info.get("InitCommit", {}).get("ID") != "N/A"
            if not has_init:
                logger.warning("this Docker Engine has no docker-init: models end on TERM only if they handle it")
            self._host = Host(self._work_dir, self._work_root(client), info["NCPU"], has_init)
        return self._host

    def _work_root(self, client: docker.APIClient) -> Path:
        if self._work_volume is None:
            return self._work_dir
        try:
            return Path(client.inspect_volume(self._work_volume)["Mountpoint"])
        except NotFound as error:
            raise EngineUnavailable(f"this Docker Engine has no volume {self._work_volume}") from error


def _run_state(word: str) -> RunState:
    """The run state for one of the Engine's words."""
    if word == "created":
        return RunState.CREATED
    return RunState.EXITED if word in (*ENDED, "removing") else RunState.RUNNING
