"""The texts of refusals: the exact words that clients of Ray Serve, TensorFlow Serving and Triton know, and our own."""

import grpc

from contract.access import not_shared
from contract.errors import PermissionDenied
from grpc_gateway.statuses import StatusError, status_error_of

NOT_POPULATED = "Route table is not populated yet."
DRAINING = "This node is being drained."

SILENT = "The private API did not answer. Nothing was lost; repeat the request."
NOT_A_LIVE_REPLICA = "the replica that this token was made for is no more"
DEPLOYER_MAY_NOT = "the key that this replica was deployed with has ended, or lacks the scope submit; deploy it again"

INSIDE_ONLY = "the token of a replica is honoured only from inside its container, at the address in GRPC_GATEWAY"

_LISTING = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."


def not_populated() -> StatusError:
    """Refuses calls before the first routing table, and Ray's own calls while there is no application."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, NOT_POPULATED)


def draining() -> StatusError:
    """Refuses Ray's own calls while the gateway is about to stop."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, DRAINING)


def failed() -> StatusError:
    """Reports a fault of the gateway itself; its log says more."""
    text = "The gateway failed and does not know why; the operator finds the request id in the log."
    return StatusError(grpc.StatusCode.INTERNAL, text)


def shutting_down() -> StatusError:
    """Ends a call that is still open when the time for draining is over."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, "The gateway stops now. Call again: another one answers.")


def host_gone(address: str) -> StatusError:
    """Ends a call that was open on a replica whose host vanished."""
    return StatusError(
        grpc.StatusCode.UNAVAILABLE, f"The replica at {address} was lost: its host does not answer any more."
    )


def key_ended() -> StatusError:
    """Ends calls whose key was revoked or expired after they began."""
    return StatusError(grpc.StatusCode.UNAUTHENTICATED, "The key of this call was revoked, or has expired.")


def unknown_application(application: str) -> StatusError:
    """Ray's answer to a call that names no application, or an unknown one."""
    what = f"Application '{application}' not found." if application else "Application metadata not set."
    return StatusError(grpc.StatusCode.NOT_FOUND, f"{what} {_LISTING}")


def not_shared_with(deployment: str) -> StatusError:
    """Refuses a call to a model that is for certain owners, of another one."""
    return status_error_of(PermissionDenied(not_shared(deployment)))


def unknown_prefix(prefix: str) -> StatusError:
    """Refuses a path whose prefix no deployment has."""
    return StatusError(grpc.StatusCode.NOT_FOUND, f"No deployment has the prefix '{prefix}'.")


def no_default_service(deployment: str, prefix: str) -> StatusError:
    """Refuses a bare method behind the prefix of a deployment without a default service."""
    return StatusError(
        grpc.StatusCode.UNIMPLEMENTED,
        f"Deployment '{deployment}' has no default_service: call /{prefix}/<package.Service>/<Method>.",
    )


def timed_out(limit_s: float) -> StatusError:
    """Ray's words for the deployment's own time limit."""
    return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, f"Request timed out after {limit_s}s.")


def restricted(header: str) -> StatusError:
    """Triton's words for a call whose category is closed by a key."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, f"This protocol is restricted, expecting header '{header}'")


def admin_only(path: str) -> StatusError:
    """Refuses a call that changes a server, or an unknown one, if the deployment does not allow it."""
    method = path.rpartition("/")[2]
    return StatusError(
        grpc.StatusCode.UNIMPLEMENTED, f"{method} is passed on only where a deployment sets allow_admin."
    )


def consumers_only() -> StatusError:
    """Refuses the service by which consumers run tasks in a replica: nobody else may name folders to it."""
    return StatusError(
        grpc.StatusCode.UNIMPLEMENTED,
        "inferenceserver.Tasks is for the server itself: submit a task by POST /api/tasks/.",
    )


def unknown_servable(name: str, version: int | None) -> StatusError:
    """TensorFlow Serving's answer for an unknown model."""
    what = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {what}")


def unknown_status(name: str) -> StatusError:
    """TensorFlow Serving's answer to GetModelStatus for an unknown model."""
    return StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")


def missing_spec(has_spec: bool) -> StatusError:
    """TensorFlow Serving's answer to a request that names no model."""
    text = "ModelSpec has no name specified." if has_spec else "Missing ModelSpec"
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text)


def unknown_model(name: str, version: str = "") -> StatusError:
    """Triton's answer for an unknown model."""
    what = f"'{name}' version {version}" if version else f"'{name}'"
    return StatusError(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {what} is not found")


def unnamed_statistics(deployments: list[str]) -> StatusError:
    """Refuses ModelStatistics of all models of a server if it is not clear which server."""
    there = f"{len(deployments)} ({', '.join(deployments)})" if deployments else "none"
    return StatusError(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"ModelStatistics names no model, and of KServe deployments there are {there}: name a model, or the deployment "
        "by the metadata application.",
    )
