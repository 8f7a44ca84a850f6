"""Makes images present, and distinguishes a registry that refuses from one in trouble and one out of reach."""

from collections.abc import Mapping
from threading import Event
from typing import Any

import docker
from docker.errors import APIError, NotFound

from contract.image_names import bare_name
from contract.schemas import PROCESS_TAG_PREFIX, PullPolicy
from job_consumer.engines import EngineUnavailable, ImageNotFound, OnPull
from job_consumer.engines.docker.errors import engine_text, is_read_timeout, readable
from job_consumer.engines.docker.pull_faults import PullFault, judge_pull
from job_consumer.engines.docker.pull_progress import PullProgress

PAUSES_S = (1.0, 2.0)
"""Between the tries to reach a registry."""
PULL_SILENCE_S = 600.0
"""A pull that is silent for this long is given up. Unpacking one large layer is the longest silence."""


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
    present = _is_present(client, image)
    if not _must_pull(image, pull_policy, present=present):
        return
    said = ""
    for pause_s in (*PAUSES_S, None):
        problem = _pull(client, image, on_progress)
        if problem is None:
            return
        said = problem
        _raise_unless_unreachable(image, said, "pulling")
        if pause_s is not None and closing.wait(pause_s):
            break
    raise _unreachable(image, said, present=present, has_run=has_run)


def look_up_image(client: docker.APIClient, image: str, pull_policy: PullPolicy) -> tuple[bool, str | None]:
    """Does what `Engine.look_up_image` says."""
    present = _is_present(client, image)
    if not _must_pull(image, pull_policy, present=present):
        return True, find_digests(client.inspect_image(image)).get(bare_name(image))  # type: ignore[no-untyped-call]
    try:
        found = client.inspect_distribution(image)  # type: ignore[no-untyped-call]
    except APIError as error:
        said = engine_text(error)
        _raise_unless_unreachable(image, said, "looking up")
        raise _unreachable(image, said, present=present) from error
    except OSError as error:
        if not is_read_timeout(error):
            raise
        raise _unreachable(image, str(error), present=present) from error
    return False, f"{bare_name(image)}@{found['Descriptor']['digest']}"


def ran_image(client: docker.APIClient, container: Mapping[str, Any]) -> str:
    """Does what `Engine.ran_image` says, of an inspected container."""
    image_id, name = str(container["Image"]), bare_name(str(container["Config"]["Image"]))
    try:
        digests = find_digests(client.inspect_image(image_id))  # type: ignore[no-untyped-call]
    except NotFound:
        # It may be removed while its container runs.
        return image_id
    return digests.get(name) or next(iter(digests.values()), image_id)


def find_digests(image: Mapping[str, Any]) -> dict[str, str]:
    """What registries call an inspected image, by their names for it."""
    return {digest.partition("@")[0]: digest for digest in image["RepoDigests"] or []}


def _must_pull(image: str, pull_policy: PullPolicy, *, present: bool) -> bool:
    """Raises `ImageNotFound` if it must, and must not be pulled."""
    if pull_policy == PullPolicy.NEVER and not present:
        raise ImageNotFound(f"the image {image} is not on this host and its pull policy is never: load it there")
    return not present or pull_policy == PullPolicy.ALWAYS


def _raise_unless_unreachable(image: str, said: str, doing: str) -> None:
    fault, why = judge_pull(said)
    if fault is PullFault.ABSENT:
        raise ImageNotFound(f"the registry does not give the image {image}: {why}", said)
    if fault is PullFault.OURS:
        raise EngineUnavailable(f"{doing} the image {image} failed: {why}", said)


def _unreachable(image: str, said: str, *, present: bool, has_run: bool = False) -> ImageNotFound | EngineUnavailable:
    unreachable = "and no registry could be reached"
    # An image that exists is no mistyped name: its registry is away.
    if present:
        return EngineUnavailable(f"the image {image} must be pulled for each run {unreachable}", said)
    if has_run:
        return EngineUnavailable(f"the image {image}, which ran before, is not on this host {unreachable}", said)
    return ImageNotFound(f"the image {image} is not on this host {unreachable}", said)


def _is_present(client: docker.APIClient, image: str) -> bool:
    if image.startswith(PROCESS_TAG_PREFIX):
        raise ImageNotFound(f"{image} names a program, which runs only on hosts without Docker; name an image")
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except NotFound:
        return False
    except APIError as error:
        if error.status_code == 400:
            raise ImageNotFound(f"{image} is not the name of an image", engine_text(error)) from error
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
