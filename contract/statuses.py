"""The life of a task in words: statuses and their transitions, phases of an attempt, and reasons of a failure."""

from enum import StrEnum


class Status(StrEnum):
    """Where a task stands. The words are used in the database, in JSON and in logs."""

    QUEUED = "queued"
    """Durable and waiting for a consumer."""
    LEASED = "leased"
    """A consumer holds it and prepares the container."""
    RUNNING = "running"
    """Its container was started."""
    FINISHED = "finished"
    """Its output was committed."""
    FAILED = "failed"
    """It ended without an output; `Reason` says why."""
    CANCELLED = "cancelled"
    """Its owner ended it."""

    @property
    def is_terminal(self) -> bool:
        """Whether a task in this status never changes again."""
        return self in TERMINAL

    @property
    def is_held(self) -> bool:
        """Whether a consumer holds the task under a lease."""
        return self in HELD


TERMINAL = frozenset({Status.FINISHED, Status.FAILED, Status.CANCELLED})
HELD = frozenset({Status.LEASED, Status.RUNNING})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    # queued -> running or finished is the resurrection: a holder whose lease expired comes back before another claim.
    Status.QUEUED: frozenset({Status.LEASED, Status.RUNNING, Status.FINISHED, Status.FAILED, Status.CANCELLED}),
    Status.LEASED: frozenset({Status.RUNNING, Status.QUEUED, Status.FINISHED, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.FINISHED, Status.FAILED, Status.CANCELLED}),
    Status.FINISHED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class Phase(StrEnum):
    """What the holder of a task does now. Each phase has its own deadline."""

    PREPARING = "preparing"
    """Fetching archives and the image, creating the container."""
    RUNNING = "running"
    """The container runs; the model's time limit counts."""
    DELIVERING = "delivering"
    """The container ended; its output is being collected and uploaded."""


class Reason(StrEnum):
    """Why a task failed: a closed list that clients can rely on."""

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
    """The server failed `private_api.tasks.limits.MAX_INFRASTRUCTURE_FAILURES` times, or lost the input; the model is
    not to blame."""


class WaitsFor(StrEnum):
    """What a task waits for that does not run yet: a closed list that clients can rely on."""

    TURN = "turn"
    """A consumer is free: it takes the tasks before this one, then this one."""
    CONSUMER = "consumer"
    """No consumer of its kind is there; somebody must start one."""
    RESUME = "resume"
    """Every consumer of its kind drains; an operator must resume one."""
    REPAIR = "repair"
    """Every consumer of its kind is sick, or has no room for its input; an operator must look at their hosts."""
    FREE_CONSUMER = "free_consumer"
    """Every consumer of its kind is busy."""
    HELD_GPU = "held_gpu"
    """Every GPU that is not busy with a task belongs to models that are kept warm."""
    QUOTA = "quota"
    """As many of its owner's tasks run as the quota allows: one of them must end first."""
    RETRY = "retry"
    """The pause after a failed attempt."""
    IMAGE = "image"
    """Its consumer pulls the image."""
    PREPARATION = "preparation"
    """Its consumer fetches input, image and model, and creates the container."""


class Kind(StrEnum):
    """What a task needs of a consumer: each kind has a queue of its own."""

    CPU = "cpu"
    GPU = "gpu"


class ConsumerStatus(StrEnum):
    """How a consumer stands towards the next task."""

    FREE = "free"
    """It takes the next task of its kinds."""
    BUSY = "busy"
    """It runs a task."""
    HELD = "held"
    """Models that are kept warm hold its GPU: it takes no GPU tasks but theirs."""
    SILENT = "silent"
    """It was not heard from for a whole lease: it takes nothing until it asks again."""
    DRAINING = "draining"
    """It finishes what it has and takes nothing new until an operator resumes it."""
    SICK = "sick"
    """It cannot run tasks now, as it says itself; it looks again, and takes the next one once it is well."""


class Finding(StrEnum):
    """Whether a consumer could run a model's image, as far as it knows without a pull."""

    PRESENT = "present"
    """It is on its host."""
    IN_REGISTRY = "in_registry"
    """Its host can pull it."""
    NOT_FOUND = "not_found"
    """A task would fail there with `image_not_found`."""
    UNKNOWN = "unknown"
    """It has not looked yet, does not look, or could not tell."""
