"""The points at which `FAIL_AT` makes a private API fail, in the order of a task's life."""

from enum import StrEnum


class Failpoint(StrEnum):
    """Each is one moment between two steps that a crash may tear apart."""

    SUBMIT_RECEIVED = "submit.received"
    """The zip lies under its temporary name."""
    SUBMIT_STORED = "submit.stored"
    """The zip has its lasting name; no row refers to it."""
    SUBMIT_COMMITTED = "submit.committed"
    """The task is durable; its client does not know."""
    DISPATCH_DUE = "dispatch.due"
    """A bell is about to ring."""
    DISPATCH_RUNG = "dispatch.rung"
    """The bell has rung; the outbox does not know."""
    CLAIM_COMMITTED = "claim.committed"
    """The task is leased; the consumer does not know."""
    BEAT_COMMITTED = "beat.committed"
    """The lease is longer; the consumer does not know."""
    OUTPUT_RECEIVED = "output.received"
    """The output lies under its temporary name."""
    OUTPUT_STORED = "output.stored"
    """The output has its lasting name; the consumer does not know."""
    COMMIT_WRITTEN = "commit.written"
    """The result is ready in a transaction that is not committed."""
    COMMIT_COMMITTED = "commit.committed"
    """The task is finished; the consumer does not know."""
