"""What the end of a run means: the model's failure, or nothing that is its doing."""

import json
import logging
from contextlib import suppress

from contract.schemas import Assignment, Failure
from contract.statuses import Reason
from job_consumer.container_spec import Limits, limits_of_run
from job_consumer.engines import ExitState, Interruption
from job_consumer.exit_codes import command_fault, explain_exit
from job_consumer.output.failures import ModelFailed
from job_consumer.workspace import Workspace

logger = logging.getLogger(__name__)


class RunInterrupted(Exception):
    """The run did not end by itself: that is no verdict on the model, and what it wrote is no output."""

    def __init__(self, detail: str, *, blameless: bool) -> None:
        super().__init__(detail)
        self.blameless = blameless


def judge_end(state: ExitState, log_end: str, assignment: Assignment, limits: Limits) -> list[str]:
    """What the owner of a run that finished should know. Raises `RunInterrupted` if something else ended the run,
    `ModelFailed` if it failed.

    `log_end` is the end of its log, `limits` are those of its host.
    """
    if state.interruption is Interruption.ENGINE:
        detail = "the engine or its host was stopped while the run lasted"
        raise RunInterrupted(f"{detail} (exit code {state.exit_code})", blameless=True)
    if state.interruption is Interruption.OUTSIDE:
        detail = "the run was stopped or killed from outside"
        raise RunInterrupted(f"{detail} (exit code {state.exit_code})", blameless=False)
    run = limits_of_run(assignment, limits)
    if state.out_of_memory:
        detail = f"the run needed more than its {run.memory_bytes} bytes of memory"
        if state.exit_code == 0 and not assignment.strict_output:
            return [f"{detail}, so one of its processes was killed; the output may lack what that one was to write"]
        raise ModelFailed(Reason.OUT_OF_MEMORY, detail, state.exit_code)
    if state.exit_code == 0:
        return []
    if fault := command_fault(state.exit_code, log_end):
        raise ModelFailed(Reason.IMAGE_NOT_FOUND, f"the image's command cannot be executed: {fault}", state.exit_code)
    said = explain_exit(state.exit_code, log_end, run)
    raise ModelFailed(Reason.EXIT_CODE, f"the container ended with {said}", state.exit_code)


def keep_verdict(workspace: Workspace, failed: ModelFailed) -> None:
    """Write down why a run failed, before it is ended or removed. On a full disk the caller alone remembers it."""
    partial = workspace.verdict.with_suffix(".partial")
    try:
        partial.write_text(json.dumps([failed.reason, failed.detail, failed.exit_code]))
        partial.replace(workspace.verdict)
    except OSError as error:
        logger.warning("%s: the verdict is kept in memory alone: %s", workspace.root.name, error)
        with suppress(OSError):
            partial.unlink()


def kept_verdict(workspace: Workspace) -> ModelFailed | None:
    """The reason for which an earlier process of this consumer ended the run, if it did."""
    if not workspace.verdict.exists():
        return None
    # The release before this one kept no exit code.
    reason, detail, *exit_code = json.loads(workspace.verdict.read_text())
    return ModelFailed(Reason(reason), detail, *exit_code)


def tell_failure(consumer: str, failed: ModelFailed, image: str | None) -> Failure:
    """The failure as the private API takes it."""
    detail, code = failed.detail[:4096], failed.exit_code
    return Failure(consumer=consumer, reason=failed.reason, detail=detail, exit_code=code, image=image)
