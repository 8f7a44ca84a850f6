"""Images for scenarios, built once per content and run of the tests on the tested Engine."""

import functools
import hashlib
import io
import json
from pathlib import Path

import docker

EXAMPLES = Path(__file__).parents[2] / "examples"
ECHO_TAG = "inference-server/echo:1"
USER_SERVICE_TAG = "inference-server/user-service:1"
UNTIL_TOLD = "trap 'exit 1' TERM; sleep 600 & wait"
"""A script that ends as soon as it is asked to; by itself a shell would use up its whole grace period."""
CALL_SERVER = Path(__file__).with_name("call_server")
CALL_SERVER_TAG = "inference-server-tests:call-server"


@functools.cache
def echo_image() -> str:
    """The echo example."""
    client = docker.from_env()
    try:
        client.images.build(path=str(EXAMPLES / "echo"), tag=ECHO_TAG, rm=True)
    finally:
        client.close()
    return ECHO_TAG


def script_image(script: str) -> str:
    """An image whose own command is this busybox shell script."""
    return dockerfile_image(f"FROM busybox:1.37\nCMD {json.dumps(['/bin/sh', '-c', script])}\n")


@functools.cache
def dockerfile_image(dockerfile: str) -> str:
    """An image of this Dockerfile, which can copy nothing."""
    tag = f"inference-server-tests:{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}"
    client = docker.from_env()
    try:
        client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True)
    finally:
        client.close()
    return tag


@functools.cache
def call_server_image() -> str:
    """A gRPC service that does what a test asks for; tests/e2e/call_server says what."""
    client = docker.from_env()
    try:
        client.images.build(path=str(CALL_SERVER), tag=CALL_SERVER_TAG, rm=True)
    finally:
        client.close()
    return CALL_SERVER_TAG


@functools.cache
def user_service_image() -> str:
    """The example of a user's own gRPC service, which describes itself by reflection."""
    client = docker.from_env()
    try:
        client.images.build(
            path=str(EXAMPLES / "grpc"), dockerfile="user_service/Dockerfile", tag=USER_SERVICE_TAG, rm=True
        )
    finally:
        client.close()
    return USER_SERVICE_TAG
