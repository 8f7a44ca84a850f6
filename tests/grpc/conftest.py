"""One network and one set of compiled stubs for all of these tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e.grpc_door import NAME
from tests.grpc.containers import internal_network
from tests.grpc.scripts import compile_protos
from tests.grpc.stack import Stack, run_stack
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
def stack(tmp_path_factory: pytest.TempPathFactory, stubs: Path) -> Iterator[Stack]:
    require_docker()
    with run_stack(tmp_path_factory.mktemp("stack"), stubs) as running:
        yield running


@pytest.fixture(params=[NAME, None], ids=["by-name", "by-path"])
def channel(request: pytest.FixtureRequest, stack: Stack) -> Iterator[grpc.Channel]:
    """Of the stack, through TLS."""
    with stack.grpc.channel(request.param) as channel:
        yield channel
