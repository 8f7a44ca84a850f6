"""A version runs the image that its tag stood for when it was registered, if its operator allows that image at all."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.client import DoorClient, door_of
from tests.e2e.images import script_image
from tests.e2e.systems import services_system, standalone_system
from tests.integration.image_registry import Registry
from tests.services import require_docker
from tests.waiting import wait_until


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    require_docker()
    with Registry(tmp_path / "registry") as registry:
        yield registry


def docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], capture_output=True, check=True)


def says(word: str) -> str:
    return script_image(f"echo {word} > /output/said")


def push(word: str, tag: str) -> None:
    """The registry gets what says this word under the tag, and the Engine forgets it."""
    docker("tag", says(word), tag)
    docker("push", tag)
    docker("rmi", tag)


def run(door: DoorClient, model: str) -> tuple[str, str]:
    """What a task of the model says, and what image its attempt names."""
    uid = door.submit(model, {"a": b""})
    said = door.result(uid)["said"].decode().strip()
    (attempt,) = door.http.get(f"/api/tasks/{uid}/attempts").json()
    return said, attempt["image"]


def test_a_pinned_version_runs_what_its_tag_stood_for(registry: Registry, tmp_path: Path) -> None:
    tag = f"{registry.address}/lab/tool:1"

    def view(model: str) -> Any:
        return door.http.get(f"/api/models/{model}").json()

    with standalone_system(tmp_path) as system, door_of(system.url) as door:
        try:
            push("one", tag)
            pinned, moving = (
                door.add_model(tag, pull_policy="missing"),
                door.add_model(tag, pull_policy="missing", pin="false"),
            )
            wait_until(lambda: view(pinned).get("pinned_image"), "the consumer to look the image up")
            one = view(pinned)["pinned_image"]
            assert one.startswith(f"{tag.removesuffix(':1')}@sha256:")
            assert view(moving).get("pinned_image") is None
            push("two", tag)
            assert run(door, pinned) == ("one", one)
            said, image = run(door, moving)
            assert (said, image == one) == ("two", False)
            # The tag is here by now, and stands for another image.
            assert run(door, pinned) == ("one", one)
            door.http.post(
                "/api/models/", params={"human_readable_id": pinned, "container_tag": tag, "replace": "true"}
            )
            wait_until(lambda: view(pinned).get("pinned_image") == image, lambda: str(view(pinned)))
            assert run(door, pinned) == ("two", image)
            # Whoever has no registry loads what was pinned by hand.
            docker("rmi", "--force", tag, one, image)
            docker("tag", says("three"), tag)
            registry.stop()
            said, image = run(door, pinned)
            assert (said, image.startswith("sha256:")) == ("three", True)
        finally:
            subprocess.run(["docker", "rmi", "--force", tag], capture_output=True, check=False)


@pytest.mark.parametrize("how", ["standalone", "services"])
def test_only_images_that_the_operator_allows_are_registered(how: str, postgres_url: str, tmp_path: Path) -> None:
    require_docker()
    with (
        standalone_system(tmp_path, extra=("--allowed-images", "lab/*,registry.example.org/*"))
        if how == "standalone"
        else services_system(tmp_path, postgres_url, extra={"ALLOWED_IMAGES": "lab/* registry.example.org/*"})
    ) as system:
        answers = [
            httpx.post(
                f"{system.url}/api/models/", params={"human_readable_id": "m", "container_tag": image}, trust_env=False
            )
            for image in ("evil/tool:1", "lab/tool:1")
        ]
    assert [answer.status_code for answer in answers] == [403, 200]
    assert "the operator allows lab/* registry.example.org/*" in answers[0].json()["detail"]
