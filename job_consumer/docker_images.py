"""Makes images present, and tells a registry that says no from one that is in trouble or cannot be reached."""

import re
from enum import Enum
from threading import Event

import docker
from docker.errors import APIError, NotFound

from contract.schemas import PROCESS_TAG_PREFIX
from job_consumer.docker_errors import engine_text, readable
from job_consumer.engine import EngineUnavailable, ImageNotFound

PAUSES_S = (1.0, 2.0)
"""Between the tries to reach a registry."""

# The Engine passes the registry's trouble on as text; its own status code tells only some of it.
IN_TROUBLE = re.compile(
    r"toomanyrequests|too many requests|pull rate limit|unexpected (http )?status.{0,300}\b(429|5\d\d)\b", re.IGNORECASE
)
UNREACHABLE = re.compile(
    r"no such host|connection refused|connection reset|no route to host|network is unreachable|timeout|timed out"
    r"|deadline exceeded|name resolution|server misbehaving|: EOF$",
    re.IGNORECASE,
)
ABSENT = re.compile(
    r"manifest unknown|not found|name unknown|pull access denied|repository does not exist|unauthorized|denied"
    r"|no basic auth credentials|no matching manifest|invalid reference format|invalid repository name"
    r"|must be lowercase",
    re.IGNORECASE,
)


class PullFault(Enum):
    """What a failed pull says about the image."""

    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    OURS = "ours"


def ensure_image(client: docker.APIClient, image: str, pull_policy: str, closing: Event) -> None:
    """See `Engine.ensure_image`; `closing` cuts the pauses between tries short."""
    if image.startswith(PROCESS_TAG_PREFIX):
        raise ImageNotFound(f"{image} names a program, which runs only on hosts without Docker; name an image")
    present = _is_present(client, image)
    if pull_policy == "never" and not present:
        raise ImageNotFound(f"the image {image} is not on this host and its pull policy is never: load it there")
    if pull_policy == "never" or (present and pull_policy == "missing"):
        return
    text = ""
    for pause_s in (*PAUSES_S, None):
        problem = _pull(client, image)
        if problem is None:
            return
        text = problem
        fault = pull_fault(text)
        if fault is PullFault.ABSENT:
            raise ImageNotFound(f"the registry does not give the image {image}: {text}")
        if fault is PullFault.OURS:
            raise EngineUnavailable(f"pulling the image {image} failed: {text}")
        if pause_s is not None and closing.wait(pause_s):
            break
    where = "must be pulled for each run" if present else "is not on this host"
    raise ImageNotFound(f"the image {image} {where} and no registry could be reached: {text}")


def pull_fault(text: str) -> PullFault:
    """What the text of a failed pull says. What is not known says nothing about the image."""
    if IN_TROUBLE.search(text):
        return PullFault.OURS
    if UNREACHABLE.search(text):
        return PullFault.UNREACHABLE
    return PullFault.ABSENT if ABSENT.search(text) else PullFault.OURS


def _is_present(client: docker.APIClient, image: str) -> bool:
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except NotFound:
        return False
    except APIError as error:
        if error.status_code == 400:
            raise ImageNotFound(f"{image} is not the name of an image: {engine_text(error)}") from error
        raise
    return True


def _pull(client: docker.APIClient, image: str) -> str | None:
    """Pull once; the text of what went wrong, or None."""
    problem = None
    try:
        # Read to the end also after an error, so that the connection is free for the next call.
        for line in client.pull(image, stream=True, decode=True):
            problem = line.get("error", problem)
    except APIError as error:
        return engine_text(error)
    return readable(problem) if problem else None
