"""The exact words that clients of Ray Serve, TensorFlow Serving, Triton and of the HTTP door know."""

import grpc

from grpc_gateway.statuses import Refusal

NOT_POPULATED = "Route table is not populated yet."
DRAINING = "This node is being drained."

KEY_WANTED = "this server wants a key: X-API-Key: <key>, or Authorization: Bearer <key>"
SCOPE_WANTED = "This key may not submit tasks: it lacks the scope submit."
NOT_A_KEY = "what was given is not a key: keys look like is_<16 hex digits>_<64 hex digits>"
SILENT = "The private API did not answer. Nothing was lost; repeat the request."
NOT_A_LIVE_REPLICA = "the replica that this token was made for is no more"

_LISTING = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."


def not_populated() -> Refusal:
    """Before the first routing table, and for Ray's own calls while there is no application."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, NOT_POPULATED)


def draining() -> Refusal:
    """Ray's own calls while the gateway is about to stop."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, DRAINING)


def failed() -> Refusal:
    """A fault of the gateway itself: its log says more."""
    text = "The gateway failed and does not know why; the operator finds the request id in the log."
    return Refusal(grpc.StatusCode.INTERNAL, text)


def shutting_down() -> Refusal:
    """A call that is still open when the time for draining is over."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, "The gateway stops now. Call again: another one answers.")


def host_gone(address: str) -> Refusal:
    """A call that was open on a replica whose host vanished."""
    return Refusal(
        grpc.StatusCode.UNAVAILABLE, f"The replica at {address} was lost: its host does not answer any more."
    )


def unknown_application(application: str) -> Refusal:
    """Ray's answer to a call that names no application, or one that is not there."""
    what = f"Application '{application}' not found." if application else "Application metadata not set."
    return Refusal(grpc.StatusCode.NOT_FOUND, f"{what} {_LISTING}")


def unknown_prefix(prefix: str) -> Refusal:
    """A path with a prefix that no deployment has."""
    return Refusal(grpc.StatusCode.NOT_FOUND, f"No deployment has the prefix '{prefix}'.")


def no_default_service(deployment: str, prefix: str) -> Refusal:
    """A bare method behind the prefix of a deployment that has no default service."""
    return Refusal(
        grpc.StatusCode.UNIMPLEMENTED,
        f"Deployment '{deployment}' has no default_service: call /{prefix}/<package.Service>/<Method>.",
    )


def timed_out(limit_s: float) -> Refusal:
    """Ray's words for the deployment's own time limit."""
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, f"Request timed out after {limit_s}s.")


def restricted(header: str) -> Refusal:
    """Triton's words for a call whose category is closed by a key."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, f"This protocol is restricted, expecting header '{header}'")


def admin_only(path: str) -> Refusal:
    """A call that changes a server, or one that nobody knows, to a deployment that does not allow it."""
    method = path.rpartition("/")[2]
    return Refusal(grpc.StatusCode.UNIMPLEMENTED, f"{method} is passed on only where a deployment sets allow_admin.")


def consumers_only() -> Refusal:
    """The service by which consumers run tasks in a replica: nobody else names folders to it."""
    return Refusal(
        grpc.StatusCode.UNIMPLEMENTED,
        "inferenceserver.Tasks is for the server itself: submit a task by POST /api/tasks/.",
    )


def unknown_servable(name: str, version: int | None) -> Refusal:
    """TensorFlow Serving's answer for a model that is not there."""
    what = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {what}")


def unknown_status(name: str) -> Refusal:
    """TensorFlow Serving's answer to GetModelStatus."""
    return Refusal(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")


def missing_spec(has_spec: bool) -> Refusal:
    """TensorFlow Serving's answer to a request that names no model."""
    text = "ModelSpec has no name specified." if has_spec else "Missing ModelSpec"
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, text)


def unknown_model(name: str, version: str = "") -> Refusal:
    """Triton's answer for a model that is not there."""
    what = f"'{name}' version {version}" if version else f"'{name}'"
    return Refusal(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {what} is not found")


def unnamed_statistics(deployments: list[str]) -> Refusal:
    """ModelStatistics of all models of a server, where it is not clear which server."""
    there = f"{len(deployments)} ({', '.join(deployments)})" if deployments else "none"
    return Refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"ModelStatistics names no model, and of KServe deployments there are {there}: name a model, or the deployment "
        "by the metadata application.",
    )
