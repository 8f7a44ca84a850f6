"""One network and one set of compiled stubs for all of these tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e.grpc_door import NAME, GrpcDoor
from tests.grpc.containers import internal_network
from tests.grpc.scripts import compile_protos
from tests.grpc.stack import Stack, bare_compose_stack, deploy_examples
from tests.services import require_docker


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    with internal_network() as name:
        yield name


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled .proto files; importable here too."""
    folder = compile_protos(tmp_path_factory.mktemp("stubs"))
    sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="package")
def bare_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcDoor]:
    """With nothing deployed on it."""
    require_docker()
    with bare_compose_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="package")
def stack(bare_stack: GrpcDoor, stubs: Path) -> Stack:
    """With the examples deployed on it."""
    return deploy_examples(bare_stack, stubs)


@pytest.fixture(params=[NAME, None], ids=["by-name", "by-path"])
def channel(request: pytest.FixtureRequest, stack: Stack) -> Iterator[grpc.Channel]:
    """Of the stack, through TLS."""
    with stack.grpc.channel(request.param) as channel:
        yield channel
