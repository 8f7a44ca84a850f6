"""Parts of the paths and queries of calls, safe whatever a user typed."""

from urllib.parse import quote

from inference_client.errors import UnusableInput


def segment(name: str) -> str:
    """A name as one part of a path. Raises `UnusableInput` for one that would change the path."""
    # With an empty name the path is the list's.
    if not name or name in (".", ".."):
        raise UnusableInput(f"{name!r} names nothing on the server")
    return quote(name, safe="")


def model_path(model: str) -> str:
    """The path of a model, or of the version that `<id>@<version>` names. Raises `UnusableInput`."""
    return f"/api/models/{segment(model)}"


def version_path(human_readable_id: str, version: int) -> str:
    """The path of a version of a model. Raises `UnusableInput`."""
    return f"{model_path(human_readable_id)}/versions/{version}"


def deployment_path(model: str) -> str:
    """The path of a model's deployment. Raises `UnusableInput`."""
    return f"{model_path(model)}/deployment"


def query_value(value: object) -> str:
    """A value as it stands in a query: booleans in JSON's words."""
    return str(value).lower() if isinstance(value, bool) else str(value)
