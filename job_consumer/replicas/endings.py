"""Says in words how the container of a replica ended."""

from contract.deployments import ReplicaAssignment
from job_consumer.container_spec import Limits, memory_limit, shared_memory_limit
from job_consumer.engines import ExitState
from job_consumer.exit_codes import explain_exit


def describe_exit(state: ExitState, assignment: ReplicaAssignment, limits: Limits) -> str:
    """How it ended, with the limit that it ran into if it can be told."""
    if state.out_of_memory:
        memory = memory_limit(assignment, limits)
        return f"the container needed more than its {memory} bytes of memory (exit code {state.exit_code})"
    shared_memory = shared_memory_limit(assignment, limits)
    return f"the container ended with {explain_exit(state.exit_code, '', shared_memory_bytes=shared_memory)}"
