"""A consumer on a host with GPUs, shown to it by a mount of its own over `/proc/driver`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.systems import Process, free_port
from tests.gpu_host import gpu_host
from tests.services import missing
from tests.waiting import wait_until

ONE, OTHER = "GPU-8a2f1c3d-5b6e-4f70-9182-000000000001", "GPU-8a2f1c3d-5b6e-4f70-9182-000000000003"
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
OVER_DRIVER = 'mount --bind "$0" /proc/driver && exec "$@"'
# The container toolkit lays a file system of its own over the driver's.
GIVEN_GPUS = 'mount --bind "$0" /proc/driver && cd /proc/driver/nvidia && mount -t tmpfs none . && '
GIVEN_GPUS += 'cp -r gpus /proc/driver/nvidia && cd "$OLDPWD" && exec "$@"'


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """What stands in for `/proc/driver` of a host with one GPU."""
    folder = tmp_path / "driver"
    gpu_host(folder, ONE)
    probe = [*UNSHARE, "sh", "-c", OVER_DRIVER, str(folder), "true"]
    if (done := subprocess.run(probe, capture_output=True, text=True, check=False)).returncode != 0:
        missing(f"no mount over /proc/driver: {done.stderr.strip()}")
    return folder


@pytest.fixture(params=[OVER_DRIVER], ids=["given none"])
def consumer(host: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    """A consumer of another GPU; nothing that it needs besides is there."""
    nowhere = str(free_port())
    environment = {
        "SERVICE_TOKEN": "0123456789abcdef0123456789abcdef",
        "PRIVATE_API_URL": f"http://127.0.0.1:{nowhere}",
        "RABBIT_HOSTNAME": "127.0.0.1",
        "RABBIT_PORT": nowhere,
        "CONSUMER_NAME": "gpu-0",
        "GPU_UUID": OTHER,
        "WORK_DIR": str(tmp_path / "work"),
    }
    command = [*UNSHARE, "sh", "-c", request.param, str(host), sys.executable, "-m", "job_consumer"]
    process = Process("consumer", command, environment, tmp_path / "consumer.log")
    process.start()
    yield process
    process.end()


def test_a_consumer_whose_gpu_is_not_on_the_host_ends_with_exit_code_4(consumer: Process) -> None:
    assert consumer.wait(60) == 4, consumer.output()
    (line,) = consumer.output().splitlines()
    assert f"consumer=gpu-0 does not start: GPU {OTHER} is not on this host, whose driver shows {ONE}" in line
    assert "inference-server gpus --write" in line


@pytest.mark.parametrize("consumer", [GIVEN_GPUS], indirect=True, ids=["given GPUs"])
def test_a_consumer_that_was_given_gpus_of_its_own_is_warned_and_goes_on(consumer: Process) -> None:
    wait_until(lambda: "consumer=gpu-0 cannot register right now" in consumer.output(), consumer.output)
    (line,) = [line for line in consumer.output().splitlines() if "could not be verified" in line]
    assert f"WARNING job_consumer.gpu_check: GPU {OTHER} " in line
