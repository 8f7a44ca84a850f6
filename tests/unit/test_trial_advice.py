"""What the log of a failed run says about the sandbox, in the words of the programs that people package."""

from dataclasses import replace

import pytest

from contract.schemas import Failure, Isolation
from contract.statuses import Reason
from operations.trial.advice import Advice, advise
from operations.trial.report import describe_user
from operations.trial.run import Trial
from tests.limits import RUN_LIMITS


def failed(log: str, *, isolation: Isolation = Isolation.STRICT, changed: tuple[str, ...] = ()) -> Trial:
    failure = Failure(consumer="c", reason=Reason.EXIT_CODE, detail="the container ended with exit code 1", exit_code=1)
    return Trial(isolation, "65532:65532", failure, log, log, (), (), changed, RUN_LIMITS)


def advice_for(log: str, **options: bool) -> list[Advice]:
    return advise(failed(log), **options)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("OSError: [Errno 30] Read-only file system: '/opt/app/cache'", "/opt/app/cache"),
        ("OSError: [Errno 30] Read-only file system: 'results/mask.nii.gz'", "results/mask.nii.gz"),
        ("mkdir: cannot create directory \u2018/opt/app/cache\u2019: Read-only file system", "/opt/app/cache"),
        ("mkdir: can't create directory '/opt/my app': Read-only file system", "/opt/my app"),
        ("/run.sh: line 3: result.txt: Read-only file system", "result.txt"),
        ("sh: can't create /app/x: Read-only file system", "/app/x"),
        ("touch: /app/x: Read-only file system", "/app/x"),
        ("what():  filesystem error: cannot create directory: Read-only file system [/app/x]", "/app/x"),
    ],
)
def test_the_path_is_found_in_each_programs_words(line: str, path: str) -> None:
    (advice,) = advice_for(f"starting\n{line}\nbye\n")
    assert advice.problem == f"it writes to {path}, which is read-only"


def test_paths_are_told_once_and_not_all_of_them() -> None:
    log = "".join(f"touch: /app/{number % 7}: Read-only file system\n" for number in range(20))
    (advice,) = advice_for(log)
    assert advice.problem == "it writes to /app/0, /app/1, /app/2, /app/3, /app/4 and 2 more, which is read-only"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("requests.exceptions.ConnectionError: Failed to resolve 'huggingface.co'", "network"),
        ("urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", "network"),
        ("curl: (6) Could not resolve host: zenodo.org", "network"),
        ("Error: getaddrinfo EAI_AGAIN registry.npmjs.org", "network"),
        ("KeyError: 'getpwuid(): uid not found: 65532'", "no name"),
        ("RuntimeError: unable to open shared memory object </torch_1_2>", "shared memory"),
        ("ERROR: Unexpected bus error encountered in worker.", "shared memory"),
        ("RuntimeError: can't start new thread", "processes and threads"),
        ("OSError: [Errno 28] No space left on device", "is full"),
        ("su: must be suid to work properly", "root"),
        ("PermissionError: [Errno 1] Operation not permitted: '/output/x'", "root"),
        ("PermissionError: [Errno 13] Permission denied: '/opt/app/weights.pt'", "/opt/app/weights.pt"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "GPU"),
    ],
)
def test_a_line_of_the_log_leads_to_advice(line: str, problem: str) -> None:
    (advice,) = advice_for(f"{line}\n")
    assert problem in advice.problem


def test_a_run_with_a_gpu_is_not_told_to_take_one() -> None:
    assert advice_for("RuntimeError: Found no NVIDIA driver on your system.\n", has_gpu=True) == []


def test_what_a_program_says_of_its_input_is_no_advice() -> None:
    assert advice_for("error: the input holds no .nii.gz; it holds notes.txt\n") == []


def test_the_comparison_speaks_only_where_the_log_does_not() -> None:
    relaxed = failed("", isolation=Isolation.COMPATIBLE, changed=("/app/results/mask.nii",))
    (advice,) = advise(failed(""), relaxed=relaxed)
    assert "/app/results/mask.nii" in advice.problem
    (advice,) = advise(failed("touch: /app/x: Read-only file system\n"), relaxed=relaxed)
    assert "/app/x" in advice.problem


@pytest.mark.parametrize(
    ("fault", "repair"),
    [
        ("a symbolic link", "cp -L"),
        ("a hard link: write a copy instead", "write a copy"),
        ("a socket", "in /tmp"),
        ("a FIFO", "in /tmp"),
        ("the name has a control character", "portable names"),
    ],
)
def test_an_output_that_is_refused_is_quoted_with_its_repair(fault: str, repair: str) -> None:
    detail = f"/output holds what cannot be sent: 'x' ({fault})."
    failure = Failure(consumer="c", reason=Reason.OUTPUT_REJECTED, detail=detail)
    (advice,) = advise(Trial(Isolation.STRICT, None, failure, "", "", (), (), (), RUN_LIMITS))
    assert advice.problem == detail
    assert repair in advice.repair


@pytest.mark.parametrize(("user", "lines"), [("65532:65532", 1), (None, 1), ("1000:1000", 2)])
def test_a_user_that_a_root_consumer_would_not_use_is_noted(user: str | None, lines: int) -> None:
    shown = describe_user(replace(failed(""), user=user))
    assert len(shown) == lines
    assert lines == 1 or "65532:65532" in shown[1]


def test_a_run_that_finished_needs_no_advice() -> None:
    trial = replace(failed("touch: /app/x: Read-only file system\n"), failure=None, output=(("a", 1),))
    assert advise(trial) == []
