"""Turns what docker-py, requests and urllib3 raise into the errors of `Engine`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3.exceptions
from docker.errors import APIError, DockerException
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ReadTimeout

from job_consumer.engines import EngineRefused, EngineUnavailable, ImageNotFound, RunKey, RunVanished

CONTAINER_ID = re.compile(r"\b[0-9a-f]{64}\b")
# What they quote is the image's own.
_COMMAND_FAULTS = (
    (re.compile(r"no command specified", re.IGNORECASE), "it names none"),
    (re.compile(r"unable to find (?P<what>user|group) (?P<name>[^\s:]+)", re.IGNORECASE), "it has no {what} {name}"),
    (re.compile(r"exec format error", re.IGNORECASE), "it is made for another kind of CPU, or is a script without #!"),
    (re.compile(r'exec: "(?P<name>[^"]+)".*permission denied', re.IGNORECASE), "{name} is not executable"),
    (re.compile(r'exec: "(?P<name>[^"]+)"', re.IGNORECASE), "{name} is not in the image, or not on its PATH"),
    (re.compile(r"executable file not found", re.IGNORECASE), "it is not in the image, or not on its PATH"),
)
PART_OF_ENGINE = re.compile(r"docker-init|nvidia-container")
_RUNTIME = re.compile(r"unknown (?:or invalid runtime name:|runtime specified) (\S+)", re.IGNORECASE)
NO_GPU_SUPPORT = "could not select device driver"
INSTALL_GPU_SUPPORT = (
    "this Docker Engine cannot hand out GPUs: install nvidia-container-toolkit on the host, "
    "run `nvidia-ctk runtime configure --runtime=docker` and restart Docker"
)


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turns every error of the Engine that leaves the block into `EngineUnavailable`."""
    try:
        yield
    except APIError as error:
        # 503 is what a filter before an Engine answers while the Engine is away.
        says = "no Docker Engine answers" if error.status_code == 503 else "the Docker Engine refused"
        raise EngineUnavailable(says, engine_text(error)) from error
    # requests' errors are OSErrors.
    except (DockerException, urllib3.exceptions.HTTPError, OSError) as error:
        kind = EngineRefused if is_refusal(error) else EngineUnavailable
        raise kind("no Docker Engine answers", str(error)) from error


@contextmanager
def run_errors(key: RunKey) -> Iterator[None]:
    """Turns the Engine's word that there is no such container, or none any more, into `RunVanished`."""
    try:
        yield
    except APIError as error:
        if error.status_code in (404, 409):
            raise RunVanished(key.name) from error
        raise


def engine_text(error: APIError) -> str:
    """What the Engine said, as its operator may read it."""
    return readable(error.explanation or str(error))


def readable(text: str) -> str:
    """The text without container ids, which say nothing to anybody."""
    return " ".join(CONTAINER_ID.sub("", text).split())


def start_error(error: APIError) -> ImageNotFound | EngineUnavailable:
    """The error for a container that could not be created or started: the image's fault, or ours."""
    text = engine_text(error)
    if NO_GPU_SUPPORT in text:
        return EngineUnavailable(INSTALL_GPU_SUPPORT)
    if found := _RUNTIME.search(text):
        return EngineUnavailable(f"this Docker Engine has no runtime {found[1]}: add it to the host's daemon.json")
    if "no such image" in text.lower():
        return ImageNotFound("the image is not on this host any more", text)
    if (fault := _command_fault(text)) is not None:
        return ImageNotFound(f"the image's command cannot be executed: {fault}", text)
    return EngineUnavailable("the Docker Engine refused to start the container", text)


def _command_fault(text: str) -> str | None:
    if PART_OF_ENGINE.search(text):
        return None
    for pattern, fault in _COMMAND_FAULTS:
        if found := pattern.search(text):
            return fault.format(**found.groupdict())
    return None


def is_refusal(error: BaseException | None) -> bool:
    """Whether it says that nothing listens at the Engine's address. Libraries wrap this in errors of their own."""
    while error is not None:
        if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_read_timeout(error: Exception) -> bool:
    """Whether nothing arrived in the time given, which is not a fault.

    docker-py's `wait` raises `ReadTimeout` before the headers of the response, and a `ConnectionError` after them.
    """
    if isinstance(error, ReadTimeout):
        return True
    return (
        isinstance(error, RequestsConnectionError)
        and bool(error.args)
        and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)
    )
