"""One network and one set of compiled stubs for all of these tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grpc.containers import internal_network
from tests.grpc.scripts import compile_protos


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
