"""Which real services this machine offers.

A test that needs a missing one is skipped with the reason; with CI=true it fails.
"""

import functools
import gc
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import urlsplit

import pytest

DATABASE_URL = os.environ.get("TEST_DATABASE_URL", "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres")
BROKER_URL = os.environ.get("TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")


BASE_IMAGES = ("busybox:1.37", "python:3.13-slim")
"""What tests and their images are built on."""


def missing(reason: str) -> NoReturn:
    """Skip the test; fail it with CI=true, where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require_postgres() -> str:
    """The URL of a real PostgreSQL."""
    if not listens(DATABASE_URL, 5432):
        missing("no PostgreSQL listens; set TEST_DATABASE_URL")
    return DATABASE_URL


def require_rabbitmq() -> str:
    """The URL of a real RabbitMQ."""
    if not listens(BROKER_URL, 5672):
        missing("no RabbitMQ listens; set TEST_BROKER_URL")
    return BROKER_URL


def require_docker() -> None:
    """A Docker Engine that answers and has busybox:1.37."""
    problem = docker_problem()
    if problem:
        missing(problem)


@functools.cache
def docker_problem(image: str = BASE_IMAGES[0]) -> str | None:
    """Why containers of this image cannot run here, or None."""
    with sockets_forgiven():
        return _find_docker_problem(image)


@contextmanager
def sockets_forgiven() -> Iterator[None]:
    """docker-py leaves the socket of a failed connection to the garbage collector, which warns of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def _find_docker_problem(image: str) -> str | None:
    import docker

    try:
        client = docker.from_env(timeout=60)
    except Exception as error:
        return f"no Docker Engine answers: {error}"
    try:
        client.images.get(image)
    except Exception as error:
        return f"the image {image} is not on this Docker Engine: {error}"
    finally:
        client.close()
    return None


def listens(url: str, default_port: int) -> bool:
    """Whether something accepts connections where the URL points."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or default_port), timeout=10).close()
    except OSError:
        return False
    return True
