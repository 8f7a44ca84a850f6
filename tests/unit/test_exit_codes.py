"""What an exit code is said to mean."""

import pytest

from job_consumer.exit_codes import command_fault, explain_exit
from tests.limits import RUN_LIMITS


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (3, "exit code 3"),
        (126, "exit code 126: a command that it calls cannot be executed"),
        (127, "exit code 127: a command that it calls does not exist"),
        (129, "exit code 129: it was killed with SIGHUP"),
        (132, "exit code 132: it was killed with SIGILL; it used an instruction that this host's CPU does not have"),
        (134, "exit code 134: it was killed with SIGABRT; it aborted itself"),
        (135, "exit code 135: it was killed with SIGBUS; this usually means that its /dev/shm of 64 MiB is full; "),
        (137, "exit code 137: it was killed with SIGKILL; unless the model did that itself, it most likely ran out of"),
        (139, "exit code 139: it was killed with SIGSEGV; it crashed by a wrong access to memory"),
        (255, "exit code 255"),
    ],
)
def test_a_code_is_explained(code: int, said: str) -> None:
    assert explain_exit(code, "", RUN_LIMITS).startswith(said)


@pytest.mark.parametrize("code", [0, 1, 128, 255, 300])
def test_a_code_that_no_signal_has_is_only_named(code: int) -> None:
    assert explain_exit(code, "", RUN_LIMITS) == f"exit code {code}"


def test_a_gpu_without_memory_is_told_apart() -> None:
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."
    log = f'  File "model.py", line 3\n{line}\nbye\n'
    assert explain_exit(1, log, RUN_LIMITS) == (
        f"exit code 1; its log says that the memory of the GPU did not suffice: {line}"
    )


def test_a_command_that_cannot_be_started_is_named() -> None:
    log = "[FATAL tini (7)] exec /opt/run.sh failed: Permission denied\n"
    assert command_fault(126, log) == "/opt/run.sh: Permission denied"
    assert command_fault(1, log) is None
    assert command_fault(127, "sh: nosuch: not found\n") is None


def test_a_log_that_speaks_of_a_limit_names_the_setting() -> None:
    log = "scratch\nOSError: [Errno 28] No space left on device: '/tmp/volume.nii'\nbye\n"
    assert explain_exit(1, log, RUN_LIMITS) == (
        "exit code 1; its log says that no space was left, as when its /tmp of 32 MiB is full: OSError: [Errno 28] No "
        "space left on device: '/tmp/volume.nii'; let it remove files once they are used, or register the model with a "
        "larger temporary_bytes"
    )


def test_a_full_shared_memory_is_told_once() -> None:
    log = "/run.sh: line 3: 8 Bus error\nRuntimeError: can't start new thread\n"
    said = explain_exit(135, log, RUN_LIMITS)
    assert said.count("shared_memory_bytes") == 1
    assert "larger pids_limit" in said
