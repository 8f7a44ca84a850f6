"""Which images a consumer removes from its Engine, and which are not its to remove."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Event

import docker
import pytest

from contract.private_client import PrivateClient
from contract.schemas import Assignment
from job_consumer.container_spec import Limits, Sandbox
from job_consumer.context import ConsumerContext
from job_consumer.engines import RunKey
from job_consumer.image_cache import open_image
from job_consumer.settings import Credential
from tests.engine_client import engine_client
from tests.integration.engine_harness import MIB, Harness, docker_harness
from tests.integration.image_registry import serve_slow_image
from tests.services import require_docker

OWN = "busybox:1.37"
"""It is on the host already."""


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(engine_client()) as made:
        yield made


@pytest.fixture
def harness(tmp_path: Path, client: docker.APIClient) -> Iterator[Harness]:
    with docker_harness(tmp_path / "work", client) as made:
        yield made


@pytest.fixture
def images(client: docker.APIClient) -> Iterator[list[str]]:
    """Three images of 4 MiB, each of a registry of its own."""
    ready = Event()
    ready.set()
    with ExitStack() as registries:
        names = [registries.enter_context(serve_slow_image(ready)) for _ in range(3)]
        yield names
        for name in names:
            if client.images(name=name):
                client.remove_image(name, force=True)


@pytest.fixture
def open_for(harness: Harness) -> Iterator[Callable[..., RunKey]]:
    """Prepares an attempt with an image, within a budget; its files stay."""
    with closing(PrivateClient("http://127.0.0.1:1", "a-secret-of-the-tests")) as api:

        def prepare(image: str, *, budget: int, pull_policy: str = "missing") -> RunKey:
            context = ConsumerContext(
                credential=Credential("SERVICE_TOKEN", "a-secret-of-the-tests"),
                sandbox=Sandbox("consumer", Limits(64 * MIB, None, 64, MIB, MIB, MIB)),
                api=api,
                engine=harness.engine,
                work=harness.work,
                stopping=threading.Event(),
                image_cache_bytes=budget,
            )
            assignment = attempt_with(image, pull_policy)
            key = RunKey(assignment.uid, 1)
            harness.work.open_workspace(key)
            open_image(context, key, assignment, partial(harness.engine.ensure_image, image, assignment.pull_policy))
            return key

        yield prepare


def attempt_with(image: str, pull_policy: str) -> Assignment:
    return Assignment.model_validate(
        {
            "uid": image.encode().hex().ljust(64, "0")[:64],
            "fence": 1,
            "attempt": 1,
            "lease_s": 60,
            "human_readable_id": "echo",
            "model_version": 1,
            "container_tag": image,
            "use_gpu": False,
            "pull_policy": pull_policy,
            "isolation": "strict",
            "time_limit_s": 60,
            "memory_limit_bytes": None,
            "max_unpacked_bytes": MIB,
            "max_output_bytes": MIB,
            "input": {"sha256": "0" * 64, "size_bytes": 1},
            "model_archive": None,
        }
    )


def test_pulled_images_that_nothing_uses_go_and_no_others(
    harness: Harness, client: docker.APIClient, images: list[str], open_for: Callable[..., RunKey]
) -> None:
    first, second, third = images
    keys = [open_for(image, budget=100 * MIB) for image in (OWN, first, second)]
    # In use by an attempt; then the one whose last use is longest ago goes.
    harness.work.remove_workspace(keys[1])
    open_for(third, budget=9 * MIB)
    assert [bool(client.images(name=image)) for image in images] == [False, True, True]
    for image in (OWN, second, third):
        harness.work.remove_workspace(RunKey(attempt_with(image, "missing").uid, 1))
    # A container has it, whosever that is.
    container = client.create_container(second)["Id"]
    try:
        open_for(first, budget=0)
        assert [bool(client.images(name=image)) for image in (OWN, *images)] == [True, True, True, False]
    finally:
        client.remove_container(container)


def test_what_may_not_be_pulled_again_stays(
    harness: Harness, client: docker.APIClient, images: list[str], open_for: Callable[..., RunKey]
) -> None:
    first, second, _ = images
    harness.work.remove_workspace(open_for(first, budget=100 * MIB))
    harness.work.remove_workspace(open_for(first, budget=100 * MIB, pull_policy="never"))
    open_for(second, budget=0)
    assert client.images(name=first)
