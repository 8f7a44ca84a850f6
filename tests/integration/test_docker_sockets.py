"""Which sockets a model's container can open, tried by a program that does not go through any library."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from job_consumer.engines.docker.seccomp import FAMILIES, choose_profile
from tests.engine_client import engine_client
from tests.integration.engine_harness import Harness, docker_harness
from tests.services import missing, require_docker

SOURCE = Path(__file__).with_name("sockets.c")
REFUSED = {"AF_PACKET": 17, "AF_ALG": 38, "AF_VSOCK": 40}


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(engine_client()) as made:
        yield made


@pytest.fixture
def harness(tmp_path: Path, client: docker.APIClient) -> Iterator[Harness]:
    with docker_harness(tmp_path / "work", client) as made:
        yield made


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, which needs no library."""
    if (compiler := shutil.which("cc")) is None:
        missing("no C compiler is installed")
    target = tmp_path_factory.mktemp("sockets") / "sockets"
    subprocess.run([compiler, "-D_GNU_SOURCE", "-static", "-O1", "-o", target, SOURCE], check=True)
    return target


def tried(harness: Harness, program: Path, families: dict[str, int]) -> list[str]:
    """What the program says of each family."""
    spec = harness.spec("/input/sockets " + " ".join(map(str, families.values())))
    shutil.copy(program, harness.work.workspace(spec.key).input_dir / "sockets")
    harness.engine.start(spec)
    assert harness.end_of(spec.key).exit_code == 0
    return harness.log_of(spec.key).splitlines()


def test_a_model_reaches_neither_the_hypervisor_nor_the_kernels_ciphers_and_32_bits_are_no_way_around_it(
    harness: Harness, client: docker.APIClient, program: Path
) -> None:
    if choose_profile(client.info()) is None:
        missing("this Engine has a profile of its operator's, or no seccomp")
    said = tried(harness, program, REFUSED)
    assert {line for line in said if line.startswith("socket ")} == {f"socket {n}: EPERM" for n in REFUSED.values()}
    # Only x86-64 has this way.
    assert {line.partition(": ")[2] for line in said if line.startswith("socketcall ")} <= {"ENOSYS"}


def test_a_model_opens_the_sockets_that_programs_use(harness: Harness, program: Path) -> None:
    said = tried(harness, program, FAMILIES)
    ends = [line.partition(": ")[2] for line in said if line.startswith("socket ")]
    assert len(ends) == len(FAMILIES)
    # Some kernels have no IPv6.
    assert set(ends) <= {"done", "EAFNOSUPPORT"}
