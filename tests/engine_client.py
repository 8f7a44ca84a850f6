"""A client of the Docker Engine that the tests run on: the one that `DOCKER_HOST` names, or this machine's."""

import os
from urllib.parse import urlsplit

import docker
from docker.utils import kwargs_from_env

SOCKET = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")).path


def engine_client() -> docker.APIClient:
    """`docker.APIClient()` by itself does not look at `DOCKER_HOST`."""
    return docker.APIClient(**kwargs_from_env())
