"""Which limit a log speaks of, in the words of the programs that people package, and what is said of it."""

from dataclasses import replace

import pytest

from job_consumer.hit_limits import Limit, explain_hits, find_hits
from tests.limits import RUN_LIMITS

SHARED_MEMORY, TEMPORARY, PIDS = Limit.SHARED_MEMORY, Limit.TEMPORARY, Limit.PIDS


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("OSError: [Errno 28] No space left on device: '/dev/shm/psm_9d2f'", SHARED_MEMORY),
        ("dd: error writing '/dev/shm/batch': No space left on device", SHARED_MEMORY),
        ("RuntimeError: unable to write to file </torch_33_1>: No space left on device (28)", SHARED_MEMORY),
        ("RuntimeError: unable to open shared memory object </torch_33_1> in read-write mode", SHARED_MEMORY),
        ("RuntimeError: DataLoader worker (pid 33) is killed by signal: Bus error.", SHARED_MEMORY),
        ("It is possible that dataloader's workers are out of shared memory.", SHARED_MEMORY),
        ("OSError: [Errno 28] No space left on device: '/tmp/tmpabc/volume.nii'", TEMPORARY),
        ("gzip: write error: No space left on device", TEMPORARY),
        ("java.io.IOException: No space left on device", TEMPORARY),
        ("Error: ENOSPC: no space left on device, write", TEMPORARY),
        ("RuntimeError: can't start new thread", PIDS),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", PIDS),
        ("sh: can't fork: Resource temporarily unavailable", PIDS),
        ("/run.sh: fork: retry: No child processes", PIDS),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 7 of 64: Resource temporarily", PIDS),
        ("runtime: failed to create new OS thread (have 5 already; errno=11)", PIDS),
        ("java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory", PIDS),
        ("Error: spawn /usr/bin/dcm2niix EAGAIN", PIDS),
        ("[the run was killed: it had more than 16 processes]", PIDS),
    ],
)
def test_the_limit_is_found_in_each_programs_words(line: str, limit: Limit) -> None:
    assert find_hits(f"starting\n{line}\nbye\n") == {limit: line}


@pytest.mark.parametrize(
    "log",
    [
        "",
        "Traceback (most recent call last):\nKeyError: 'pixdim'\n",
        # That is the disk of the host.
        "OSError: [Errno 28] No space left on device: '/output/mask.nii'\n",
        "reading the shared memory of the scanner\n",
    ],
)
def test_other_logs_speak_of_none(log: str) -> None:
    assert find_hits(log) == {}
    assert explain_hits(log, RUN_LIMITS) == ""


def test_the_last_line_is_quoted_and_not_all_of_a_long_one() -> None:
    log = f"a: No space left on device\nb: No space left on device: '/tmp/{'x' * 1000}'\n"
    line = find_hits(log)[TEMPORARY]
    assert line.startswith("b: No space left on device")
    assert len(line) == 300


def test_a_host_that_gives_no_more_processes_has_an_operator() -> None:
    line = "RuntimeError: can't start new thread"
    told = "; its log says that it needed more than the 128 processes and threads that it may have (pids_limit): "
    start = f"{told}{line}; let it start fewer, with OMP_NUM_THREADS or the like, or "
    assert explain_hits(line, RUN_LIMITS) == f"{start}register the model with a larger pids_limit"
    most = replace(RUN_LIMITS, may_have_more_pids=False)
    assert explain_hits(line, most) == f"{start}have the operator raise MAX_PIDS of the consumer"
