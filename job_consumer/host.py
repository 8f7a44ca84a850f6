"""What every attempt at one consumer shares, and the two ways an attempt ends that are nobody's failure."""

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

from contract.errors import InferenceError
from contract.private_client import PrivateClient
from job_consumer.container_spec import Limits
from job_consumer.engine import Engine
from job_consumer.gpu_gate import GpuGate
from job_consumer.hosted import HostedReplicas
from job_consumer.settings import Proof
from job_consumer.workspace import WorkDir

logger = logging.getLogger(__name__)


class AttemptLost(Exception):
    """The server gave the task to somebody else, or ended it: drop everything of this attempt."""


class ConsumerStopping(Exception):
    """This consumer was told to stop: leave what runs, its next start adopts it."""


@dataclass(frozen=True)
class Host:
    """One consumer's collaborators and limits."""

    consumer: str
    proof: Proof
    gpu_uuid: str | None
    own_user: str | None
    limits: Limits
    api: PrivateClient
    engine: Engine
    work: WorkDir
    stopping: threading.Event
    replica_network: str | None = None
    """The Engine's network that replicas are on; None where this consumer hosts none."""
    replica_publish_address: str | None = None
    """The address of this host that gateways reach replicas at; None where they reach the network itself."""
    replica_slots: int = 0
    replicas: HostedReplicas = field(default_factory=HostedReplicas)
    gpu: GpuGate = field(default_factory=GpuGate)
    alive_file: Path | None = None
    """Touched as long as the consumer gets on: container health checks look at its age.

    It is removed while the private API refuses this consumer.
    """

    def note_alive(self) -> None:
        """Say that the consumer gets on, unless the private API refuses it."""
        if self.alive_file is not None:
            # A full disk must not end a heart.
            with contextlib.suppress(OSError):
                if self.api.is_refused:
                    self.alive_file.unlink(missing_ok=True)
                else:
                    self.alive_file.touch()

    def note_refused(self, error: InferenceError) -> None:
        """Say that the private API does not accept this consumer, and what to do."""
        variable = self.proof.variable
        logger.error(
            "consumer=%s gets no work, the private API refuses its %s: %s. Correct %s or %s_FILE and start it again; "
            "containers that run are kept until then",
            self.consumer,
            variable,
            error.detail.rstrip("."),
            variable,
            variable,
        )
        self.note_alive()
