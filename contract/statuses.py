"""The life of a task in words: statuses, their allowed transitions, phases of an attempt, reasons of a failure."""

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
    # queued -> running / finished is the resurrection: the lease expired, nobody else claimed, the same fence is back.
    Status.QUEUED: frozenset({Status.LEASED, Status.RUNNING, Status.FINISHED, Status.FAILED, Status.CANCELLED}),
    Status.LEASED: frozenset({Status.RUNNING, Status.QUEUED, Status.FINISHED, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.FINISHED, Status.FAILED, Status.CANCELLED}),
    Status.FINISHED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class Phase(StrEnum):
    """What the holder of a task does right now; each phase has its own deadline."""

    PREPARING = "preparing"
    """Fetching archives and the image, creating the container."""
    RUNNING = "running"
    """The container runs; the model's time limit counts."""
    DELIVERING = "delivering"
    """The container ended; its output is being collected and uploaded."""


class Reason(StrEnum):
    """Why a task failed: the closed list that clients can switch on."""

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
    """Our side failed `private_api.tasks.limits.MAX_INFRASTRUCTURE_FAILURES` times; the model is not to blame."""
