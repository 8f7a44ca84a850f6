"""Tries an image as the server would run it, and says how that ended."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contract.errors import TaskFailed
from contract.schemas import Isolation
from contract.statuses import Reason, Status
from inference_client.terminal_text import LogText, printable
from inference_client.units import format_size
from job_consumer.container_spec import SANDBOX_USER
from operations.trial.advice import Advice, advise
from operations.trial.run import Bench, Trial, TrialOptions, open_bench

FINISHED, FAILED = HTTPStatus.OK.value, TaskFailed.http_status
"""What a poll of the task would answer."""
_OUTPUT_LINES = 20
_COMPARED = frozenset({Reason.EXIT_CODE, Reason.NO_OUTPUT})
"""Endings that say nothing of what the sandbox had to do with them."""


def report_trial(
    options: TrialOptions,
    isolation: Isolation,
    *,
    work: tuple[Path, str] | None = None,
    output: Path | None = None,
    compare: bool = True,
    as_json: bool = False,
) -> int:
    """Run the image and print log, verdict, output and advice. Returns the exit code: 0 finished, 1 failed.

    `work` is a folder and the volume that holds it, if this process is in a container. `output` takes the output's zip.
    The log goes to stderr. Raises `InvalidArchive`, `UnusableInput`, `EngineUnavailable`.
    """
    with _work_dir(work) as (folder, volume), open_bench(options, folder, volume) as bench:
        with shown_log() as show:
            trial = bench.run(isolation, show)
        if trial.has_finished and output is not None:
            _keep(bench.output_zip, output)
        relaxed = _compare(bench, trial) if compare else None
    advice = advise(trial, relaxed=relaxed, has_gpu=options.gpu_uuid is not None)
    if as_json:
        print(json.dumps(_body(options, trial, advice, relaxed), indent=2))  # noqa: T201
    else:
        _show(options, trial, advice, relaxed)
    return 0 if trial.has_finished else 1


@contextmanager
def _work_dir(work: tuple[Path, str] | None) -> Iterator[tuple[Path, str | None]]:
    if work is not None:
        yield work
        return
    with TemporaryDirectory(prefix="inference-server-check-") as folder:
        yield Path(folder), None


def _compare(bench: Bench, trial: Trial) -> Trial | None:
    """The same run as its own user with a writable root, if that may tell what strict broke."""
    is_unclear = trial.failure is not None and trial.failure.reason in _COMPARED
    if trial.isolation is not Isolation.STRICT or not is_unclear:
        return None
    _say("It failed; it is run once more under compatible, to see what strict has to do with it.")
    return bench.run(Isolation.COMPATIBLE, lambda _piece: None)


def _keep(made: Path, output: Path) -> None:
    shutil.copyfile(made, output)
    folder = output.absolute().parent.stat()
    if os.geteuid() == 0:
        # In a container this is root, and the folder is the user's.
        os.chown(output, folder.st_uid, folder.st_gid)


@contextmanager
def shown_log() -> Iterator[Callable[[bytes], None]]:
    """Shows the pieces of a log on stderr as they come, without what a terminal would obey."""
    text = LogText()
    try:
        yield lambda piece: _write(text.clean(piece))
    finally:
        _write(text.clean(b"", final=True))


def _write(text: str) -> None:
    sys.stderr.buffer.write(text.encode())
    sys.stderr.buffer.flush()


def _say(text: str) -> None:
    print(f"--- {text}", file=sys.stderr, flush=True)  # noqa: T201


def _body(options: TrialOptions, trial: Trial, advice: list[Advice], relaxed: Trial | None) -> dict[str, Any]:
    failure = trial.failure
    return {
        "image": options.image,
        "isolation": trial.isolation,
        "user": trial.user,
        "status": Status.FAILED if failure else Status.FINISHED,
        "http_status": FAILED if failure else FINISHED,
        "reason": failure and failure.reason,
        "detail": failure and failure.detail,
        "exit_code": failure.exit_code if failure else 0,
        "log_tail": trial.log_tail,
        "output": [{"path": path, "size_bytes": size_bytes} for path, size_bytes in trial.output],
        "warnings": list(trial.warnings),
        "advice": [{"problem": each.problem, "repair": each.repair} for each in advice],
        "compatible": relaxed
        and {"status": _status(relaxed), "detail": _detail(relaxed), "changed": list(relaxed.changed)},
    }


def _show(options: TrialOptions, trial: Trial, advice: list[Advice], relaxed: Trial | None) -> None:
    lines = [f"{_status(trial)}: a poll would answer {FINISHED if trial.has_finished else FAILED}{_why(trial)}"]
    lines += describe_user(trial)
    if trial.has_finished:
        lines += [f"output: {len(trial.output)} files"]
        lines += [f"  {path}  {format_size(size)}" for path, size in trial.output[:_OUTPUT_LINES]]
        lines += [f"  and {len(trial.output) - _OUTPUT_LINES} more"] if len(trial.output) > _OUTPUT_LINES else []
    lines += [f"warning: {warning}" for warning in trial.warnings]
    for each in advice:
        lines += ["", f"what broke: {each.problem}", f"how to repair: {each.repair}"]
    if relaxed is not None:
        lines += ["", f"under compatible: {_status(relaxed)}{_why(relaxed)}"]
        lines += _hint(relaxed, advice)
    print("\n".join(map(printable, lines)))  # noqa: T201


def describe_user(trial: Trial) -> list[str]:
    """Lines on who the run was; one that a server's consumer would not give it is named as such."""
    user = f"user {trial.user}" if trial.user else "the image's user"
    lines = [f"run under {trial.isolation}, as {user}, without a network"]
    if trial.user not in (None, SANDBOX_USER):
        lines += [
            f"note: that is you, because this check is not root; a consumer that is root uses {SANDBOX_USER}, or the "
            "image's own user under compatible: check as root, or with the server's image (infer check --checker)"
        ]
    return lines


def _hint(relaxed: Trial, advice: list[Advice]) -> list[str]:
    if relaxed.has_finished:
        return ["if the image cannot be changed, register it with --isolation compatible"]
    return [] if advice else ["the program itself seems to be at fault, not the sandbox; its log is above"]


def _status(trial: Trial) -> str:
    return str(Status.FINISHED if trial.has_finished else Status.FAILED)


def _detail(trial: Trial) -> str | None:
    return trial.failure.detail if trial.failure else None


def _why(trial: Trial) -> str:
    return f", reason {trial.failure.reason}: {trial.failure.detail}" if trial.failure else ""
