"""What an exit code means, in words: signals by their names, and what they mostly come from."""

import re
import signal

from job_consumer.container_spec import RunLimits
from job_consumer.hit_limits import Limit, explain_hits, tell_limit

_SIGNALLED = 128
"""What a signal ended has this and the signal's number as its code, as shells count."""
_CANNOT_EXECUTE, _NOT_FOUND = 126, 127
"""The codes that shells give a command of theirs that cannot be started, and the Engine's init its only one."""
_INIT = re.compile(r"^\[FATAL tini \(\d+\)\] exec (?P<path>.+) failed: (?P<why>.+)$", re.MULTILINE)
_GPU_MEMORY = re.compile(
    r"^.*(?:CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|HIP out of memory"
    r"|OOM when allocating tensor|RESOURCE_EXHAUSTED: Out of memory).*$",
    re.MULTILINE | re.IGNORECASE,
)
_MEANINGS = {
    signal.SIGABRT: "it aborted itself, as programs do at a failed assertion or an exception that nobody catches",
    signal.SIGFPE: "it divided an integer by zero, or the like",
    signal.SIGILL: "it used an instruction that this host's CPU does not have; build the image for an older CPU",
    signal.SIGKILL: "unless the model did that itself, it most likely ran out of memory",
    signal.SIGSEGV: "it crashed by a wrong access to memory; its own code or a library of it is at fault",
    signal.SIGSYS: "it made a system call that the sandbox forbids",
    signal.SIGXFSZ: "it wrote a larger file than it may",
}
_MOST_OF_A_LINE = 300


def command_fault(exit_code: int, log_end: str) -> str | None:
    """Why the image's command could not be started at all, if that is what the code and the log's end say."""
    if exit_code not in (_CANNOT_EXECUTE, _NOT_FOUND) or not (found := _INIT.search(log_end)):
        return None
    return f"{found['path']}: {found['why']}"


def explain_exit(exit_code: int, log_end: str, limits: RunLimits) -> str:
    """The code with what is known of it; `log_end` is the end of the run's log."""
    said = f"exit code {exit_code}{_of_signal(exit_code, limits)}"
    if exit_code in (_CANNOT_EXECUTE, _NOT_FOUND):
        said += ": a command that it calls " + ("does not exist" if exit_code == _NOT_FOUND else "cannot be executed")
    if line := _GPU_MEMORY.search(log_end):
        said += f"; its log says that the memory of the GPU did not suffice: {line[0].strip()[:_MOST_OF_A_LINE]}"
    # What ended it by SIGBUS is told above.
    is_told = exit_code == _SIGNALLED + signal.SIGBUS
    return said + explain_hits(log_end, limits, but=Limit.SHARED_MEMORY if is_told else None)


def _of_signal(exit_code: int, limits: RunLimits) -> str:
    try:
        number = signal.Signals(exit_code - _SIGNALLED)
    except ValueError:
        return ""
    if number is signal.SIGBUS:
        meaning = "this usually means that {}; {}".format(*tell_limit(Limit.SHARED_MEMORY, limits))
    else:
        meaning = _MEANINGS.get(number, "")
    return f": it was killed with {number.name}" + (f"; {meaning}" if meaning else "")
