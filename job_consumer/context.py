"""What all attempts and replicas of one consumer share, and the two ways in which they end without a failure."""

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.errors import InferenceError
from contract.private_client import PrivateClient
from contract.schemas import ConsumerRegistration, RunAssignment
from job_consumer.container_spec import Sandbox
from job_consumer.engines import Engine, RunKey, RunKind
from job_consumer.gpu_gate import GpuGate
from job_consumer.health import Health
from job_consumer.held import HeldRuns
from job_consumer.networks import Guarding
from job_consumer.settings import IMAGE_CACHE_BYTES, MODEL_CACHE_BYTES, Credential
from job_consumer.stages import Stages
from job_consumer.workspace import WorkDir

logger = logging.getLogger(__name__)


class AttemptLost(Exception):
    """The private API gave the task to another consumer, or ended it: drop everything of this attempt."""


class ConsumerStopping(Exception):
    """This consumer was told to stop: leave what runs, its next start adopts it."""


@dataclass(frozen=True)
class ConsumerContext:
    """One consumer's collaborators, and the sandbox it puts every container in."""

    credential: Credential
    sandbox: Sandbox
    api: PrivateClient
    engine: Engine
    work: WorkDir
    stopping: threading.Event
    gpu: GpuGate = field(default_factory=GpuGate)
    held: HeldRuns = field(default_factory=HeldRuns)
    """What `reconcile` must not remove."""
    stages: Stages = field(default_factory=Stages)
    health: Health = field(default_factory=Health)
    guarding: Guarding = field(default_factory=Guarding)
    model_cache_bytes: int = MODEL_CACHE_BYTES
    """How much the models' folders may take of the disk together."""
    image_cache_bytes: int = IMAGE_CACHE_BYTES
    """How much pulled images may take of the engine's disk together."""
    alive_file: Path | None = None
    """Touched while the consumer makes progress: container health checks look at its age.

    It is removed while the private API refuses this consumer, while it is sick, and once its engine is gone.
    """
    engine_is_gone: threading.Event = field(default_factory=threading.Event)
    """Set when the engine has refused connections for so long that this consumer ends."""

    @property
    def consumer(self) -> str:
        """The consumer's name, which outlives its restarts."""
        return self.sandbox.consumer

    @property
    def has_leftover_on_gpu(self) -> bool:
        """Whether a run that nobody holds any more may still be on the GPU."""
        return any(key not in self.held for key in self.gpu.inside())

    def describe(self, registration: ConsumerRegistration) -> dict[str, Any]:
        """What the consumer says of itself with each claim."""
        return {**registration.model_dump(), "guards_replicas": self.guarding.works}

    def key(self, assignment: RunAssignment, kind: RunKind = RunKind.TASK) -> RunKey:
        """The name of the run that a fresh assignment gets."""
        return RunKey(assignment.uid, assignment.fence, kind, self.sandbox.server)

    def note_alive(self) -> None:
        """Show container health checks that the consumer makes progress, unless it is refused, sick or about to end."""
        if self.alive_file is not None:
            # A full disk must not end a heartbeat.
            with contextlib.suppress(OSError):
                if self.api.is_refused or self.health.trouble is not None or self.engine_is_gone.is_set():
                    self.alive_file.unlink(missing_ok=True)
                else:
                    self.alive_file.touch()

    def note_refused(self, error: InferenceError) -> None:
        """Log that the private API does not accept this consumer, and what to do."""
        variable = self.credential.variable
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
