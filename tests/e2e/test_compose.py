"""That tests of a Compose stack take containers of their own project alone."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.compose import Compose
from tests.services import require_docker

SERVICES = """
services:
  grpc-gateway: {image: "busybox:1.37", command: sleep 3600, stop_grace_period: 0s}
"""


@pytest.fixture
def projects(tmp_path: Path) -> Iterator[list[Compose]]:
    """Two with a service of the same name; nothing runs yet."""
    require_docker()
    (tmp_path / "docker-compose.yaml").write_text(SERVICES)
    with ExitStack() as stack:
        projects = [Compose(tmp_path, {}) for _ in range(2)]
        for project in projects:
            stack.callback(project.run, "down", check=False)
        yield projects


def test_a_container_of_another_project_is_never_taken(projects: list[Compose]) -> None:
    ours, theirs = projects
    theirs.run("up", "--detach")
    with pytest.raises(ValueError, match="not enough values"):
        ours.container("grpc-gateway")
    ours.run("up", "--detach")
    assert ours.container("grpc-gateway") != theirs.container("grpc-gateway")
