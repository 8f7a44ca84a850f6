"""Fixtures of the tests that need real services."""

from collections.abc import Iterator

import pytest

from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.task_logs import TaskLogs
from tests.integration.deployment_harness import DeploymentHarness
from tests.integration.grpc_backend import Backend, run_backend
from tests.integration.grpc_harness import RunningGateway, run_harness_gateway
from tests.integration.task_harness import Harness


@pytest.fixture
def harness(database: Database, store: ArchiveStore, logs: TaskLogs) -> Harness:
    """The rules over a fresh database of each kind, with the CPU model `echo` registered."""
    harness = Harness(database, store, logs)
    harness.register()
    return harness


@pytest.fixture
def plane(database: Database, store: ArchiveStore, logs: TaskLogs) -> DeploymentHarness:
    """The rules of deployments beside those of tasks, over a fresh database of each kind without models."""
    return DeploymentHarness(Harness(database, store, logs))


@pytest.fixture
def one() -> Iterator[Backend]:
    """A replica that answers on a port of its own."""
    with run_backend("one") as backend:
        yield backend


@pytest.fixture
def two() -> Iterator[Backend]:
    """Another one."""
    with run_backend("two") as backend:
        yield backend


@pytest.fixture
def gateway() -> Iterator[RunningGateway]:
    """A gateway in a thread, without any deployment yet."""
    with run_harness_gateway() as gateway:
        yield gateway
