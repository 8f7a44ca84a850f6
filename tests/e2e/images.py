"""Images for scenarios, built once per content and run of the tests on the tested Engine."""

import functools
import hashlib
import io
import json
from pathlib import Path

import docker

EXAMPLES = Path(__file__).parents[2] / "examples"
ECHO_TAG = "inference-server/echo:1"
UNTIL_TOLD = "trap 'exit 1' TERM; sleep 600 & wait"
"""A script that ends as soon as it is asked to. A shell that is not told to would use up its whole grace."""
LANES = Path(__file__).with_name("lanes")
LANES_TAG = "inference-server-tests:lanes"


@functools.cache
def echo_image() -> str:
    """The echo example."""
    client = docker.from_env()
    try:
        client.images.build(path=str(EXAMPLES / "echo"), tag=ECHO_TAG, rm=True)
    finally:
        client.close()
    return ECHO_TAG


@functools.cache
def script_image(script: str) -> str:
    """An image whose own command is this busybox shell script."""
    dockerfile = f"FROM busybox:1.37\nCMD {json.dumps(['/bin/sh', '-c', script])}\n"
    tag = f"inference-server-tests:{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}"
    client = docker.from_env()
    try:
        client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True)
    finally:
        client.close()
    return tag


@functools.cache
def lanes_image() -> str:
    """A gRPC service that does what a test asks for; tests/e2e/lanes says what."""
    client = docker.from_env()
    try:
        client.images.build(path=str(LANES), tag=LANES_TAG, rm=True)
    finally:
        client.close()
    return LANES_TAG
