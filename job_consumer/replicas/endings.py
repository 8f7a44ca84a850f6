"""How replicas end, in words."""

from contract.deployments import ReplicaEnd, ReplicaReason
from job_consumer.container_spec import RunLimits
from job_consumer.engines import EngineUnavailable, ExitState, Interruption, ReplicaEngine, RunKey, RunVanished
from job_consumer.exit_codes import explain_exit

LOG_TAIL_BYTES = 2048
_MOST_CHARACTERS = 4096
"""As many as the private API takes."""


class ReplicaEnded(Exception):
    """The replica is to end, or has ended, for a reason that the private API must know.

    `summary` is a sentence of ours, for whoever sees the deployment. `detail` adds what the container said, which may
    name a patient, so it is for the deployment's owner and for operators. `said` is for the log alone.
    """

    def __init__(
        self,
        reason: ReplicaReason,
        summary: str = "",
        exit_code: int | None = None,
        *,
        detail: str | None = None,
        said: str | None = None,
    ) -> None:
        self.reason = reason
        self.summary = summary
        self.detail = summary if detail is None else detail
        self.exit_code = exit_code
        self.said = said
        super().__init__(f"{reason}: {summary}")

    def told_by(self, consumer: str) -> ReplicaEnd:
        """The same as the private API takes it."""
        return ReplicaEnd(
            consumer=consumer,
            reason=self.reason,
            summary=storable(self.summary),
            detail=storable(self.detail),
            exit_code=self.exit_code,
        )


def container_ended(engine: ReplicaEngine, key: RunKey, state: ExitState, limits: RunLimits) -> ReplicaEnded:
    """How a replica ended whose container did."""
    if state.interruption is Interruption.ENGINE:
        return ReplicaEnded(ReplicaReason.RELEASED, "the engine or its host was stopped")
    tail = read_log_end(engine, key)
    detail = with_log(describe_exit(state, tail, limits), tail)
    summary = describe_exit(state, "", limits)
    return ReplicaEnded(ReplicaReason.CONTAINER_ENDED, summary, state.exit_code, detail=detail)


def describe_exit(state: ExitState, log_end: str, limits: RunLimits) -> str:
    """How it ended, with the limit that it ran into if its log tells; the log is quoted then."""
    if state.out_of_memory:
        return f"the container needed more than its {limits.memory_bytes} bytes of memory (exit code {state.exit_code})"
    return f"the container ended with {explain_exit(state.exit_code, log_end, limits)}"


def read_log_end(engine: ReplicaEngine, key: RunKey) -> str:
    """The end of the container's log, or why it cannot be read."""
    try:
        return engine.log_tail(key, LOG_TAIL_BYTES).decode(errors="replace").strip()
    except EngineUnavailable as error:
        return f"(its log cannot be read: {error.detail})"
    except RunVanished as error:
        return f"(its log cannot be read: {error})"


def with_log(text: str, log_end: str) -> str:
    """The text, and the end of the log that goes with it."""
    return f"{text}; its log ends with:\n{log_end}" if log_end else f"{text}; it wrote no log"


def storable(text: str) -> str:
    """What a container said, as the private API takes it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_MOST_CHARACTERS]
