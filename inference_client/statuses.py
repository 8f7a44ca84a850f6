"""The words in which the server says how things stand.

A newer server may use a word that this client does not know: it is kept as it came, as a member of its class that
equals none of those below.
"""

from enum import StrEnum
from typing import Self


class Word(StrEnum):
    """Base of all vocabularies; makes a member of any text."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        word = str.__new__(cls, value)
        word._name_ = value.upper()
        word._value_ = value
        return word


class Status(Word):
    """Where a task stands."""

    QUEUED = "queued"
    LEASED = "leased"
    """A consumer holds it and prepares the container."""
    RUNNING = "running"
    FINISHED = "finished"
    """It ended with an output."""
    FAILED = "failed"
    """It ended without an output; `Reason` says why."""
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether a task in this status never changes again."""
        return self in (Status.FINISHED, Status.FAILED, Status.CANCELLED)

    @property
    def is_held(self) -> bool:
        """Whether a consumer is working on the task."""
        return self in (Status.LEASED, Status.RUNNING)


class Phase(Word):
    """What a consumer does with the task it holds."""

    PREPARING = "preparing"
    RUNNING = "running"
    DELIVERING = "delivering"
    """The container ended; its output is being uploaded."""


class Reason(Word):
    """Why a task failed."""

    EXIT_CODE = "exit_code"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    NO_OUTPUT = "no_output"
    OUTPUT_REJECTED = "output_rejected"
    OUTPUT_TOO_LARGE = "output_too_large"
    IMAGE_NOT_FOUND = "image_not_found"
    INPUT_REJECTED = "input_rejected"
    CANCELLED = "cancelled"
    CRASHED_REPEATEDLY = "crashed_repeatedly"
    NO_CAPABLE_CONSUMER = "no_capable_consumer"
    INFRASTRUCTURE = "infrastructure"
    """The server's side failed repeatedly; the model is not to blame."""


class WaitsFor(Word):
    """What a task waits for that does not run yet."""

    TURN = "turn"
    CONSUMER = "consumer"
    """No consumer of its kind is there; somebody must start one."""
    RESUME = "resume"
    """Every consumer of its kind drains; an operator must resume one."""
    REPAIR = "repair"
    """Every consumer of its kind is sick, or has no room for its input; an operator must look at their hosts."""
    FREE_CONSUMER = "free_consumer"
    """Every consumer of its kind is busy."""
    HELD_GPU = "held_gpu"
    """Models that are kept warm hold the GPUs."""
    QUOTA = "quota"
    """One of its owner's tasks must end first: no more may run at once."""
    RETRY = "retry"
    """The pause after a failed attempt."""
    IMAGE = "image"
    """Its consumer pulls the image."""
    PREPARATION = "preparation"
    """Its consumer fetches input, image and model."""


class Kind(Word):
    """What a task needs of a consumer."""

    CPU = "cpu"
    GPU = "gpu"


class ConsumerStatus(Word):
    """How a consumer stands towards the next task."""

    FREE = "free"
    BUSY = "busy"
    HELD = "held"
    """Models that are kept warm hold its GPU."""
    SILENT = "silent"
    """It was not heard from lately."""
    DRAINING = "draining"
    """It finishes what it has and takes nothing new."""
    SICK = "sick"
    """It cannot run tasks now; `detail` says why."""


class DeploymentStatus(Word):
    """How a deployment stands."""

    IDLE = "idle"
    """No replica is kept warm; the first call starts one."""
    STARTING = "starting"
    READY = "ready"
    """At least one replica answers."""
    FAILING = "failing"
    """Its replicas end by themselves."""


class ReplicaStatus(Word):
    """Where a replica stands."""

    WANTED = "wanted"
    """Waits for a consumer."""
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """Gets no new calls; ends once its open ones are answered."""
    ENDED = "ended"


class ReplicaReason(Word):
    """Why a replica ended."""

    SURPLUS = "surplus"
    EVICTED = "evicted"
    CONTAINER_ENDED = "container_ended"
    NOT_READY = "not_ready"
    IMAGE_NOT_FOUND = "image_not_found"
    MODEL_REJECTED = "model_rejected"
    LOST = "lost"
    RELEASED = "released"


class WireProtocol(Word):
    """What a deployed container speaks."""

    REDHARE = "redhare"
    KSERVE = "kserve"
    TENSORFLOW = "tensorflow"
    RAY = "ray"
    """Ray Serve itself."""
    GRPC = "grpc"
    """Any service of the user's own."""


class Category(Word):
    """The groups of KServe calls that a restricted key can close, as Triton names them."""

    HEALTH = "health"
    METADATA = "metadata"
    INFERENCE = "inference"
    SHARED_MEMORY = "shared-memory"
    MODEL_CONFIG = "model-config"
    MODEL_REPOSITORY = "model-repository"
    STATISTICS = "statistics"
    TRACE = "trace"
    LOGGING = "logging"


class Scope(Word):
    """What a key allows, beside its owner's own tasks."""

    SUBMIT = "submit"
    """Have models compute."""
    MODELS = "models"
    """Register and deploy models."""
    OPERATE = "operate"
    """See, cancel and delete everybody's tasks."""
    KEYS = "keys"
    """List, make and revoke the keys of one's owner."""
    ADMIN = "admin"
    """All of the above, and the keys of all owners."""
    CONSUME = "consume"
    """Run tasks as a consumer, and nothing else."""


class KeyState(Word):
    """Whether a key opens anything."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Quota(Word):
    """What of a server is counted of an owner, and may be limited."""

    QUEUED = "queued"
    """Its tasks that wait."""
    RUNNING = "running"
    """Its tasks that consumers hold."""
    STORED = "stored"
    """The bytes of its tasks' inputs and outputs that are kept."""
    DAILY = "daily"
    """The bytes of inputs that it uploaded in the last 24 hours."""
    UPLOADS = "uploads"
    """Its zips that arrive right now."""
    REQUESTS = "requests"
    """Its requests to the HTTP API in one second."""


class QuotaUnit(Word):
    """What a quota counts."""

    TASKS = "tasks"
    BYTES = "bytes"
    UPLOADS = "uploads"
    REQUESTS = "requests"


class EventType(Word):
    """What an event of the server is about."""

    TASK = "task"
    CONSUMER = "consumer"
    DEPLOYMENT = "deployment"
    QUEUE = "queue"
    PROGRESS = "progress"


class Finding(Word):
    """Whether a consumer could run a model's image, as far as it knows without a pull."""

    PRESENT = "present"
    """It is on its host."""
    IN_REGISTRY = "in_registry"
    """Its host can pull it."""
    NOT_FOUND = "not_found"
    """A task would fail there with `image_not_found`."""
    UNKNOWN = "unknown"
    """It has not looked yet, does not look, or could not tell."""
