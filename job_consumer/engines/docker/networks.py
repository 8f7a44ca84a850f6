"""How runs of a Docker Engine are reached: the networks of replicas, and the guard of each."""

import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import docker
from docker.errors import APIError, NotFound

from contract.schemas import PullPolicy
from job_consumer.engines import (
    CannotGuard,
    ContainerSpec,
    EngineError,
    EngineUnavailable,
    ImageNotFound,
    OnPull,
    RunKey,
    StoredImage,
)
from job_consumer.engines.docker.ending import SIGNALLED
from job_consumer.engines.docker.errors import engine_errors, engine_text, readable
from job_consumer.engines.docker.guard import (
    STANDS,
    guard_config,
    guard_labels,
    guard_rules,
    segments_of,
)
from job_consumer.engines.docker.profile import ENDED, consumer_label, guard_name, published, reached_at
from job_consumer.networks import Network, NetworkAccess

NOTHING = "inference-server/nothing:1"
"""The image of a guard that is made of its host's programs."""
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_EMPTY_TAR = bytes(10_240)
_STANDS_WITHIN_S = 30.0
_LOOK_S = 0.02


class DockerNetworks(ABC):
    """The part of a `DockerEngine` that is about networks."""

    _closing: Event
    """Set by `close`."""
    _work_volume: str | None
    _guard_image: str | None
    """The image with `nft` of which guards are made; without one they are made of this host's programs."""

    @abstractmethod
    def _client(self) -> docker.APIClient: ...

    @abstractmethod
    def find_image(self, image: str) -> StoredImage | None: ...

    @abstractmethod
    def ensure_image(
        self, image: str, pull_policy: PullPolicy, on_progress: OnPull | None = None, *, has_run: bool = False
    ) -> None: ...

    @abstractmethod
    def _inspect(self, key: RunKey) -> dict[str, Any]: ...

    @abstractmethod
    def _remove(self, call: Callable[[], object]) -> None: ...

    def find_network(self, name: str) -> Network | None:
        """An attachable overlay network counts once this host takes part in it."""
        with engine_errors():
            try:
                return Network(is_internal=self._client().inspect_network(name)["Internal"])
            except NotFound:
                return None

    def make_network(self, name: str) -> None:
        """Make a bridge network without a way outside, unless a network of this name exists."""
        with engine_errors():
            if self.find_network(name) is None:
                self._client().create_network(name, driver="bridge", internal=True, check_duplicate=True)

    def network_host(self, name: str) -> str | None:
        """The address at which containers of a bridge network reach the Engine's host; None if there is none."""
        with engine_errors():
            segments = segments_of(self._client().inspect_network(name))
        return next((segment.host for segment in segments if segment.host), None)

    def why_unguarded(self, network: str) -> str | None:
        """Why runs on this network cannot be guarded, for the operator; None if they can: a guard is tried."""
        name = f"is-trial-{secrets.token_hex(8)}-guard"
        try:
            with engine_errors():
                client = self._client()
                try:
                    self._raise_guard(client, name, NetworkAccess(network, 1), {}, {})
                finally:
                    self._remove(partial(client.remove_container, name, v=True, force=True))
        except EngineError as error:
            return str(error)
        return None

    def is_guarded(self, key: RunKey) -> bool:
        """A run that has one is in its guard's network namespace."""
        with engine_errors():
            return _is_guarded(self._inspect(key))

    def address(self, key: RunKey, port: int) -> str | None:
        """A run has one network; once it has ended it has no address."""
        with engine_errors():
            container = self._inspect(key)
            if not _is_guarded(container):
                return reached_at(container, port)
            if container["State"]["Status"] in ENDED:
                return None
            try:
                return reached_at(self._client().inspect_container(guard_name(key)), port)
            except NotFound:
                return None

    def _open_guard(self, client: docker.APIClient, spec: ContainerSpec, access: NetworkAccess) -> None:
        """Make sure that the run's guard stands, before the run starts. Raises `CannotGuard`."""
        labels = guard_labels(spec.key) | dict([consumer_label(spec.consumer)])
        self._raise_guard(client, guard_name(spec.key), access, published(spec), labels)

    def _remove_guard(self, client: docker.APIClient, key: RunKey) -> None:
        self._remove(partial(client.remove_container, guard_name(key), v=True, force=True))

    def _raise_guard(
        self,
        client: docker.APIClient,
        name: str,
        access: NetworkAccess,
        ports: Mapping[str, list[dict[str, str]]],
        labels: Mapping[str, str],
    ) -> None:
        try:
            self._start_guard(client, name, self._describe_guard(client, access, ports, labels))
        except APIError as error:
            if error.status_code not in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN):
                raise
            raise CannotGuard("the Docker Engine refused the guard of a network", engine_text(error)) from error

    def _describe_guard(
        self,
        client: docker.APIClient,
        access: NetworkAccess,
        ports: Mapping[str, list[dict[str, str]]],
        labels: Mapping[str, str],
    ) -> dict[str, Any]:
        segments = segments_of(client.inspect_network(access.name))
        # A consumer that is no container calls its replicas by the host's address, as a gateway beside it does.
        is_called_by_host = self._work_volume is None
        rules = guard_rules(access, segments, is_published=bool(ports), is_called_by_host=is_called_by_host)
        if self._guard_image is not None:
            try:
                self.ensure_image(self._guard_image, PullPolicy.MISSING)
            except ImageNotFound as error:
                raise CannotGuard("the image of guards is not here", str(error)) from error
            return guard_config(self._guard_image, access.name, rules, labels=labels, ports=ports)
        if shutil.which("nft", path=_PATH) is None:
            raise CannotGuard("nft is not on this host: install the package nftables")
        if self.find_image(NOTHING) is None:
            client.import_image_from_data(_EMPTY_TAR, *NOTHING.split(":"))
        folders = [path for path in _PROGRAMS if Path(path).is_dir()]
        return guard_config(NOTHING, access.name, rules, labels=labels, ports=ports, host_folders=folders)

    def _start_guard(self, client: docker.APIClient, name: str, config: Mapping[str, Any]) -> None:
        """Start it, unless it runs, and wait until its rules hold."""
        try:
            client.create_container_from_config(config, name)  # type: ignore[no-untyped-call]
        except APIError as error:
            # The same start was cut short before.
            if error.status_code != HTTPStatus.CONFLICT:
                raise
        client.start(name)
        deadline = monotonic() + _STANDS_WITHIN_S
        while STANDS.encode() not in (said := client.logs(name)):
            state = client.inspect_container(name)["State"]
            # Any other end, as by a signal, is the Engine's or somebody's, and says nothing of the next guard.
            if state["Status"] in ENDED and 0 < state["ExitCode"] < SIGNALLED:
                raise CannotGuard("the guard of a network does not stand", readable(said.decode(errors="replace")))
            if state["Status"] in ENDED:
                raise EngineUnavailable("the guard of a network was ended")
            if monotonic() > deadline or self._closing.wait(_LOOK_S):
                raise EngineUnavailable("the guard of a network says nothing yet")


def _is_guarded(container: Mapping[str, Any]) -> bool:
    return str(container["HostConfig"]["NetworkMode"]).startswith("container:")
