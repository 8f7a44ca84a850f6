"""Makes images present, and distinguishes a registry that refuses from one in trouble and one out of reach."""

import re
from enum import Enum
from threading import Event
from typing import Any

import docker
from docker.errors import APIError, NotFound

from contract.schemas import PROCESS_TAG_PREFIX, PullPolicy
from job_consumer.engines import EngineUnavailable, ImageNotFound, OnPull
from job_consumer.engines.docker.errors import engine_text, readable
from job_consumer.engines.docker.pull_progress import PullProgress

PAUSES_S = (1.0, 2.0)
"""Between the tries to reach a registry."""
PULL_SILENCE_S = 600.0
"""A pull that is silent for this long is given up. Unpacking one large layer is the longest silence."""

# The Engine passes the registry's trouble on as text; its own status code shows only part of it.
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
    """Why a pull failed, as far as the Engine's text says."""

    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    OURS = "ours"


class PullingClient(docker.APIClient):
    """docker-py pulls without any time limit; this client limits how long the Engine may stay silent."""

    def send(self, request: Any, **kwargs: Any) -> Any:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = PULL_SILENCE_S
        return super().send(request, **kwargs)


def ensure_image(
    client: docker.APIClient,
    image: str,
    pull_policy: PullPolicy,
    closing: Event,
    on_progress: OnPull | None = None,
    *,
    has_run: bool = False,
) -> None:
    """Does what `Engine.ensure_image` says; `closing` cuts the pauses between tries short."""
    if image.startswith(PROCESS_TAG_PREFIX):
        raise ImageNotFound(f"{image} names a program, which runs only on hosts without Docker; name an image")
    present = _is_present(client, image)
    if pull_policy == PullPolicy.NEVER and not present:
        raise ImageNotFound(f"the image {image} is not on this host and its pull policy is never: load it there")
    if pull_policy == PullPolicy.NEVER or (present and pull_policy == PullPolicy.MISSING):
        return
    text = ""
    for pause_s in (*PAUSES_S, None):
        problem = _pull(client, image, on_progress)
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
    unreachable = f"and no registry could be reached: {text}"
    # An image that exists is no mistyped name: its registry is away.
    if present:
        raise EngineUnavailable(f"the image {image} must be pulled for each run {unreachable}")
    if has_run:
        raise EngineUnavailable(f"the image {image}, which ran before, is not on this host {unreachable}")
    raise ImageNotFound(f"the image {image} is not on this host {unreachable}")


def pull_fault(text: str) -> PullFault:
    """Why a pull failed, by its text. A text that is not known does not count against the image."""
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


def _pull(client: docker.APIClient, image: str, on_progress: OnPull | None) -> str | None:
    """Pull once; returns what went wrong, or None."""
    problem, progress = None, PullProgress()
    try:
        # Read to the end even after an error, so that the connection is free for the next call.
        for line in client.pull(image, stream=True, decode=True):
            problem = line.get("error", problem)
            progress.note(line)
            if on_progress is not None:
                on_progress(progress.percent)
    except APIError as error:
        return engine_text(error)
    return readable(problem) if problem else None
