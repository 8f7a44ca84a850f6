"""Which real services this machine offers the tests: a missing one skips with its reason, and fails under CI=true."""

import functools
import os
import socket
from typing import NoReturn
from urllib.parse import urlsplit

import pytest

DATABASE_URL = os.environ.get("TEST_DATABASE_URL", "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres")
BROKER_URL = os.environ.get("TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")


def missing(reason: str) -> NoReturn:
    """Skip, or fail where every service must be there."""
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
def docker_problem(image: str = "busybox:1.37") -> str | None:
    """Why containers cannot run here, or None."""
    import docker

    try:
        client = docker.from_env(timeout=10)
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
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or default_port), timeout=2).close()
    except OSError:
        return False
    return True
