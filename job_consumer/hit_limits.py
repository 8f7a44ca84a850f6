"""Which of its limits a run has hit, by what it logged.

The Engine tells of memory only: it has no call for the `pids.events` of a container, and `/tmp` and `/dev/shm` are gone
with its last process.
"""

import re
from enum import StrEnum

from job_consumer.container_spec import RunLimits
from kit.sizes import say_bytes


class Limit(StrEnum):
    """A limit of a run, by the parameter of a registration that sets it."""

    SHARED_MEMORY = "shared_memory_bytes"
    TEMPORARY = "temporary_bytes"
    PIDS = "pids_limit"


_NO_SPACE = r"No space left on device|ENOSPC\b"
_SAID = {
    # PyTorch names its files in /dev/shm so, and tells of a worker that was killed there.
    Limit.SHARED_MEMORY: rf"(?:/dev/shm|</torch_|shared memory).*(?:{_NO_SPACE})|(?:{_NO_SPACE}).*(?:/dev/shm|</torch_)"
    r"|unable to open shared memory|out of shared memory|torch_shm_manager|\bBus error\b|SIGBUS",
    # What was written to /output is on the host's disk.
    Limit.TEMPORARY: rf"^(?!.*(?:/dev/shm|</torch_|shared memory|/output\b)).*(?:{_NO_SPACE})",
    Limit.PIDS: r"can't start new thread|(?:can't|cannot|unable to) fork|fork: retry|pthread_create.*failed"
    r"|failed to create new OS thread|unable to create (?:new )?native thread|Resource temporarily unavailable"
    r"|\bspawn\b.*EAGAIN"
    # What the process engine itself says.
    r"|it had more than [0-9]+ processes",
}
_PATTERNS = {limit: re.compile(f"^.*?(?:{said}).*$", re.MULTILINE | re.IGNORECASE) for limit, said in _SAID.items()}
_MOST_OF_A_LINE = 300


def find_hits(log: str) -> dict[Limit, str]:
    """The limits that a log speaks of, each with the last line that does."""
    lines = {limit: list(pattern.finditer(log)) for limit, pattern in _PATTERNS.items()}
    return {limit: found[-1][0].strip()[:_MOST_OF_A_LINE] for limit, found in lines.items() if found}


def explain_hits(log: str, limits: RunLimits, *, but: Limit | None = None) -> str:
    """What the log of a run that failed says about its limits, to end a sentence with; mostly nothing."""
    told = ((limit, line, *tell_limit(limit, limits)) for limit, line in find_hits(log).items() if limit is not but)
    return "".join(f"; its log says that {fact}: {line}; {remedy}" for _, line, fact, remedy in told)


def tell_limit(limit: Limit, limits: RunLimits) -> tuple[str, str]:
    """That the limit was hit, and what can be done about it."""
    if limit is Limit.SHARED_MEMORY:
        return (
            f"its /dev/shm of {say_bytes(limits.shared_memory_bytes)} is full",
            f"let it use fewer workers or smaller batches, or {_register(limit)}",
        )
    if limit is Limit.TEMPORARY:
        return (
            f"no space was left, as when its /tmp of {say_bytes(limits.temporary_bytes)} is full",
            f"let it remove files once they are used, or {_register(limit)}",
        )
    more = _register(limit) if limits.may_have_more_pids else "have the operator raise MAX_PIDS of the consumer"
    return (
        f"it needed more than the {limits.pids} processes and threads that it may have ({limit})",
        f"let it start fewer, with OMP_NUM_THREADS or the like, or {more}",
    )


def _register(limit: Limit) -> str:
    return f"register the model with a larger {limit}"
