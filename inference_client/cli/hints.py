"""What `infer` says in place of a server's text that is meant for callers of the HTTP API."""

import re

from inference_client.errors import (
    DeploymentNotFound,
    IdempotencyConflict,
    InferenceError,
    KeyNotFound,
    ModelExists,
    ModelNotFound,
    RouteNotFound,
    TaskPending,
    Unauthenticated,
)

HINTS: dict[type[InferenceError], str] = {
    DeploymentNotFound: "the model is not deployed; deploy it with: infer deploy MODEL --port PORT",
    ModelNotFound: "no model has this id; list the models with: infer models list",
    KeyNotFound: "no key that yours may revoke has this id; list them with: infer keys",
    TaskPending: "the task has not ended yet; wait for it with: infer wait UID",
    IdempotencyConflict: "this --idempotency-key was used for a submission with other content; choose another one",
    ModelExists: "a model with this id is registered already; make a new version of it with --replace",
    Unauthenticated: "the server wants a key for this; log in with: infer login (or set INFERENCE_SERVER_KEY)",
    RouteNotFound: "the server does not know this call: it is of another version than this infer; update the older one",
}
"""By the class of the error; the first class that fits counts."""

_HTTP = re.compile(
    r"\b(?:GET|HEAD|POST|PUT|DELETE) |/api/|/docs\b|\?wait=|\breplace=true|X-API-Key|Authorization:|Idempotency-Key"
)


def speaks_http(text: str) -> bool:
    """Whether `text` tells its reader what to do over HTTP."""
    return _HTTP.search(text) is not None


def hint_for(error: BaseException) -> str | None:
    """The text to show in place of the error's own, or None if that one serves users of `infer` as well."""
    if not isinstance(error, InferenceError) or not speaks_http(error.detail):
        return None
    return next((hint for cls, hint in HINTS.items() if isinstance(error, cls)), None)
