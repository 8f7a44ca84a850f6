"""Replicas on a real Engine under a real private API: hosted, probed, watched, adopted, ended."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.engine_bench import until
from tests.integration.replica_bench import PORT, ReplicaBench, replica_bench
from tests.running_api import RunningApi
from tests.services import require_docker


@pytest.fixture
def bench(private_api: RunningApi, tmp_path: Path) -> Iterator[ReplicaBench]:
    require_docker()
    with replica_bench(private_api, tmp_path / "work") as made:
        yield made


def test_a_replica_is_hosted_answers_and_ends_with_its_deployment(bench: ReplicaBench) -> None:
    bench.register()
    with bench.consumer():
        bench.deploy()
        replica = bench.replica()
        assert replica.consumer == bench.name
        assert bench.call(replica, "Say", b"hello") == b"hello"
        (container,) = bench.containers()
        assert replica.address == f"{container['NetworkSettings']['Networks'][bench.network]['IPAddress']}:{PORT}"
        told = json.loads(bench.call(replica, "Environment"))
        assert (told["REPLICA_UID"], told["DEPLOYMENT"], told["MODEL_DIR"]) == (replica.uid, "warm", "/model")
        assert (told["PORT"], told["HOME"], told["NVIDIA_VISIBLE_DEVICES"]) == (str(PORT), "/tmp", "void")
        bench.undeploy()
        until(lambda: not bench.containers())
    assert list((bench.work_dir / "replicas" / bench.name).iterdir()) == []
    labels = {"label": f"inference-server.replica={replica.uid}"}
    assert not bench.docker.volumes(filters=labels)["Volumes"]
