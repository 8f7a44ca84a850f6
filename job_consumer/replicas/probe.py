"""Asks the container of one replica whether it is ready."""

from contract.deployments import ReplicaAssignment
from job_consumer.engines import EngineUnavailable, ReplicaEngine, RunKey
from job_consumer.replicas.calls import why_not_ready
from job_consumer.replicas.spec import model_names

_TIMEOUT_S = 2.0
_MOST_CHARACTERS = 4096
"""As many as the private API takes."""


class Probe:
    """Where a replica's container is reached, and what it says."""

    def __init__(self, engine: ReplicaEngine, key: RunKey, assignment: ReplicaAssignment) -> None:
        self._engine = engine
        self._key = key
        self._serving = assignment.serving
        self._models = model_names(assignment)

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


def storable(text: str) -> str:
    """What a container said, as the private API takes it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_MOST_CHARACTERS]
