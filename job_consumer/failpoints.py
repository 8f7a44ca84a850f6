"""The points at which `FAIL_AT` makes a consumer fail, in the order of an attempt."""

from enum import StrEnum


class Failpoint(StrEnum):
    """Each is one moment between two steps that a crash may tear apart."""

    CLAIM_HEARD = "claim.heard"
    """A bell has rung; nothing is claimed."""
    CLAIM_GIVEN = "claim.given"
    """The claim was answered; the bell is not acknowledged, and nothing of the attempt is on this host."""
    PREPARE_OPENED = "prepare.opened"
    """The workspace is there, and empty."""
    PREPARE_FETCHED = "prepare.fetched"
    """The input's zip is there; it is not unpacked."""
    RUN_CREATED = "run.created"
    """The container exists and was not started."""
    RUN_STARTED = "run.started"
    """The container runs; the private API does not know."""
    RUN_ENDED = "run.ended"
    """The container has ended; its end is not judged."""
    DELIVER_BEGUN = "deliver.begun"
    """The run was good; nothing of its output is sent."""
    DELIVER_UPLOADED = "deliver.uploaded"
    """The output is stored; it is not committed."""
    DELIVER_COMMITTED = "deliver.committed"
    """The task is finished; its container is still there."""
    CLEAN_REMOVED = "clean.removed"
    """The container is gone; the workspace is still there."""
