"""Asks the container of one replica whether it is ready."""

import socket
import time

from contract.deployments import ReplicaAssignment, ReplicaReason
from job_consumer.container_spec import Sandbox
from job_consumer.engines import EngineUnavailable, ReplicaEngine, RunKey
from job_consumer.replicas.calls import why_not_ready
from job_consumer.replicas.endings import ReplicaEnded, storable
from job_consumer.replicas.spec import model_names

_TIMEOUT_S = 2.0
_WALL_S = 1.0
_NETWORK_S = 5.0


class Probe:
    """Where a replica's container is reached, and what it says."""

    def __init__(self, engine: ReplicaEngine, key: RunKey, assignment: ReplicaAssignment, sandbox: Sandbox) -> None:
        self._engine = engine
        self._key = key
        self._serving = assignment.serving
        self._models = model_names(assignment)
        self._runtime = assignment.runtime or "of this Docker Engine"
        self._looks_at = 0.0
        self._is_published = sandbox.publish_address is not None

    def ask(self) -> tuple[str | None, str | None]:
        """The container's address, None if it is not known; and why it is not ready yet, None once it is."""
        try:
            address = self._engine.address(self._key, self._serving.port)
        except EngineUnavailable as error:
            return None, error.detail
        if address is None:
            return None, "its container has no address"
        heard = why_not_ready(address, self._serving, self._models, _TIMEOUT_S)
        return address, None if heard is None else storable(heard)

    def has_network(self) -> bool:
        """False if it has no address any more: somebody ended its guard. True as long as the engine does not answer.

        Looks every 5 s, however often it is asked.
        """
        if time.monotonic() < self._looks_at:
            return True
        self._looks_at = time.monotonic() + _NETWORK_S
        try:
            return self._engine.address(self._key, self._serving.port) is not None
        except EngineUnavailable:
            return True

    def check_wall(self, address: str) -> None:
        """Raises `ReplicaEnded` if it has a guard at this address that keeps nothing away."""
        try:
            is_guarded = self._engine.is_guarded(self._key)
        except EngineUnavailable:
            return
        if is_guarded and not self._is_published and not is_walled(address, self._serving.port):
            why = f"its network has no wall, because the runtime {self._runtime} does not let the kernel filter it"
            raise ReplicaEnded(ReplicaReason.NOT_READY, f"{why}: models with this runtime cannot be kept warm")


def is_walled(address: str, port: int) -> bool:
    """Whether the kernel refuses connections to other ports of a run at this address, and not the run itself.

    A runtime with a network stack of its own, such as gVisor's, takes packets before the kernel filters them.
    """
    host = address.rpartition(":")[0].strip("[]")
    other = 1 if port != 1 else 2
    try:
        socket.create_connection((host, other), timeout=_WALL_S).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return False
