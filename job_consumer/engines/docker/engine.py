"""Runs containers on a Docker Engine: the `Engine` of this folder.

The run's folders are handed over as bind-backed volumes of the local driver, written and read by the consumer itself:
the Engine's archive calls never touch a container of foreign code (CVE-2026-41567).
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import Any, Literal

import docker
from docker.errors import APIError, NotFound
from docker.utils import kwargs_from_env

from job_consumer.engines import (
    ContainerSpec,
    ExitState,
    RunKey,
    RunKind,
    RunState,
    RunVanished,
)
from job_consumer.engines.docker.ending import START_LABEL, describe_run, engine_start, exit_state
from job_consumer.engines.docker.errors import engine_errors, is_read_timeout, run_errors, start_error
from job_consumer.engines.docker.guard import guarded_key
from job_consumer.engines.docker.host import describe_host
from job_consumer.engines.docker.images import PullingClient, ran_image
from job_consumer.engines.docker.log import follow_log, follow_output, read_tail
from job_consumer.engines.docker.networks import DockerNetworks
from job_consumer.engines.docker.profile import (
    ENDED,
    SERVER_LABEL,
    EngineHost,
    consumer_label,
    container_config,
    run_key,
    run_labels,
    run_state,
)
from job_consumer.engines.docker.storage import DockerStorage
from job_consumer.failpoints import Failpoint
from kit.failpoints import reach

logger = logging.getLogger(__name__)

WAIT_SLICE_S = 20.0
"""After at most this long it is noticed that the answer to a wait was lost."""
CONFLICT_PAUSE_S = 0.05
CONFLICT_LIMIT_S = 30.0
WaitCondition = Literal["not-running", "next-exit"]


class DockerEngine(DockerStorage, DockerNetworks):
    """One Docker Engine; connects at the first call, so it may be down when this is made.

    `work_volume` names the volume that holds `work_dir` if the consumer is a container itself; None if the Engine sees
    `work_dir` under the same path. Without `base_url`, `DOCKER_HOST` says where the Engine is, else the local socket.
    `registry_auth_file` has the logins for private registries; without it, those of this process's user are taken.
    `guard_image` has `nft`, for the guards of replicas; without it, that of this host is taken.
    """

    def __init__(
        self,
        *,
        work_dir: Path,
        work_volume: str | None,
        call_timeout_s: float = 60,
        base_url: str | None = None,
        registry_auth_file: Path | None = None,
        guard_image: str | None = None,
    ) -> None:
        self._work_dir = work_dir.absolute()
        self._work_volume = work_volume
        self._call_timeout_s = call_timeout_s
        self._base_url = base_url
        self._registry_auth_file = registry_auth_file
        self._guard_image = guard_image
        self._lock = Lock()
        self._closing = Event()
        self._connected: docker.APIClient | None = None
        self._host: EngineHost | None = None
        self._version: str | None = None

    def close(self) -> None:
        """Cuts pauses short and closes the connections."""
        self._closing.set()
        with self._lock:
            if self._connected is not None:
                self._connected.close()

    def check(self) -> str:
        """Names the Engine's version and API version, as it had them when it was first asked."""
        with engine_errors():
            client = self._client()
            # For its version the Engine starts three programs, and this is asked before each claim.
            client.ping()
            if self._version is None:
                version = client.version()
                self._version = f"Docker Engine {version['Version']} (API {version['ApiVersion']})"
        return self._version

    def host_name(self) -> str:
        """The name that the Engine's machine has for itself, which a container on it does not know."""
        with engine_errors():
            return str(self._client().info()["Name"])

    def start(self, spec: ContainerSpec) -> None:
        """The container's name decides: of two creations, one is a conflict."""
        with engine_errors():
            client = self._client()
            if spec.network is not None and spec.network.is_guarded:
                self._open_guard(client, spec, spec.network)
            if self._create(client, spec) != "created":
                return
            reach(Failpoint.RUN_CREATED)
            try:
                # Nothing happens where another thread started it meanwhile.
                client.start(spec.key.name)
            except APIError as error:
                raise start_error(error) from error

    def find(self, consumer: str) -> list[tuple[RunKey, RunState]]:
        """Finds by label; a container that carries our label and names no run is left alone."""
        with engine_errors():
            label = "=".join(consumer_label(consumer))
            containers = self._client().containers(all=True, filters={"label": label})
        found: dict[RunKey, RunState] = {}
        for container in containers:
            if (key := run_key(container["Labels"])) is not None:
                found[key] = run_state(container["State"])
            elif (key := guarded_key(container["Labels"])) is not None:
                # Alone it is a run that was not created yet, or one whose removal was cut short.
                found.setdefault(key, RunState.CREATED)
            else:
                logger.warning(
                    "container %s carries our label but names no run, and is left alone; remove it if nothing needs it",
                    container["Id"],
                )
        return list(found.items())

    def wait(self, key: RunKey, timeout_s: float) -> ExitState | None:
        """The wait call waits, inspections decide: only they show that a process was killed for memory."""
        deadline = monotonic() + timeout_s
        condition: WaitCondition = "not-running"
        slice_s = WAIT_SLICE_S
        while True:
            left_s = deadline - monotonic()
            with engine_errors():
                if left_s > 0:
                    self._hold(key, min(left_s, slice_s), condition)
                state = self._state(key)
            if state["Status"] in ENDED:
                return self._exit_state(key)
            if left_s <= 0:
                return None
            if state["Status"] == "created":
                # It is not running yet, so the first condition would answer at once, time and again.
                condition, slice_s = "next-exit", 1.0

    def follow_log(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """A log larger than its limit has lost its beginning."""
        with engine_errors(), run_errors(key):
            yield from follow_log(self._client(), key.name, stop)

    def follow_output(self, key: RunKey, stop: Event) -> Iterator[bytes]:
        """The Engine's log has a line once it has ended, or 16 KiB of it."""
        with engine_errors(), run_errors(key):
            yield from follow_output(self._client(), key.name, stop)

    def log_tail(self, key: RunKey, max_bytes: int) -> bytes:
        """Reads at most the last 64 entries of the log."""
        with engine_errors(), run_errors(key):
            return read_tail(self._client(), key.name, max_bytes)

    def environment(self, key: RunKey) -> Mapping[str, str]:
        with engine_errors():
            variables = self._inspect(key)["Config"]["Env"] or []
        return {name: value for name, _, value in (variable.partition("=") for variable in variables)}

    def ran_image(self, key: RunKey) -> str:
        with engine_errors():
            return ran_image(self._client(), self._inspect(key))

    def stop(self, key: RunKey, grace_s: float) -> None:
        """The signal is the image's own stop signal, TERM by default."""
        with engine_errors():
            try:
                self._client().stop(key.name, timeout=math.ceil(grace_s))
            except NotFound:
                return

    def remove(self, key: RunKey) -> None:
        """A run that is still running is killed."""
        with engine_errors():
            client = self._client()
            # v=True removes the nameless volumes that an image declares; ours have names.
            self._remove(partial(client.remove_container, key.name, v=True, force=True))
            if key.kind is RunKind.REPLICA:
                self._remove_guard(client, key)
            labels = [f"{name}={value}" for name, value in run_labels(key).items()]
            for volume in client.volumes(filters={"label": labels})["Volumes"] or []:
                # The filter of a key without a server finds those of every server.
                if (volume["Labels"] or {}).get(SERVER_LABEL, "") == key.server:
                    self._remove(partial(client.remove_volume, volume["Name"]))

    def _create(self, client: docker.APIClient, spec: ContainerSpec) -> str:
        """Make the container unless it exists; returns its state in the Engine's words."""
        config = container_config(spec, self._describe_host())
        config["Labels"][START_LABEL] = engine_start(client)
        deadline = monotonic() + CONFLICT_LIMIT_S
        while True:
            try:
                client.create_container_from_config(config, spec.key.name)  # type: ignore[no-untyped-call]
            except APIError as error:
                if error.status_code != 409:
                    raise start_error(error) from error
                # The Engine reserves the name before it shows the container, and frees it after it hides it.
                with suppress(RunVanished):
                    return str(self._state(spec.key)["Status"])
                if monotonic() > deadline or self._closing.wait(CONFLICT_PAUSE_S):
                    raise
            else:
                return "created"

    def _remove(self, call: Callable[[], object]) -> None:
        """Repeat a removal while the Engine reports a conflict: another one is under way, or a volume is in use."""
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

    def _exit_state(self, key: RunKey) -> ExitState:
        """Raises `EngineUnavailable` while the Engine stops: new connections are refused then, ours may still live."""
        with engine_errors(), closing(self._connect(self._client().api_version)) as client:
            return exit_state(client, describe_run(client, key))

    def _state(self, key: RunKey) -> dict[str, Any]:
        """The container's `State`."""
        state: dict[str, Any] = self._inspect(key)["State"]
        if state["Status"] == "removing":
            raise RunVanished(key.name)
        return state

    def _inspect(self, key: RunKey) -> dict[str, Any]:
        return describe_run(self._client(), key)

    def _client(self) -> docker.APIClient:
        with self._lock:
            if self._connected is None:
                # The newest version both sides speak: old ones are refused by new Engines.
                self._connected = self._connect("auto")
            return self._connected

    def _connect(self, version: str) -> PullingClient:
        settings = {"base_url": self._base_url} if self._base_url else kwargs_from_env()
        return PullingClient(version=version, timeout=math.ceil(self._call_timeout_s), **settings)

    def _describe_host(self) -> EngineHost:
        """What is true of the Engine's machine; asked once."""
        if self._host is None:
            self._host = describe_host(self._client(), self._work_dir, self._work_volume)
        return self._host
