"""The limits that consumers of tests give their runs."""

from dataclasses import replace

from job_consumer.container_spec import Limits, RunLimits

MIB = 1024**2
CONTAINER_LIMITS = Limits(
    memory_bytes=64 * MIB,
    cpus=None,
    pids=64,
    shared_memory_bytes=16 * MIB,
    temporary_bytes=16 * MIB,
    log_bytes=MIB,
)
PROCESS_LIMITS = replace(
    CONTAINER_LIMITS, memory_bytes=512 * MIB, shared_memory_bytes=64 * MIB, temporary_bytes=64 * MIB
)
"""A process without a container counts its interpreter and libraries, too."""
RUN_LIMITS = RunLimits(
    memory_bytes=512 * MIB,
    cpus=None,
    pids=128,
    may_have_more_pids=True,
    shared_memory_bytes=64 * MIB,
    temporary_bytes=32 * MIB,
)
"""What one run got, for what is said of it."""
