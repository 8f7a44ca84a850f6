"""Replicas on a real Engine under a real private API: hosted, probed, watched, adopted, ended."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from contract.deployments import DeploymentStatus, ReplicaClaim, ReplicaEnd, ReplicaReason, ReplicaStatus
from contract.statuses import Status
from job_consumer.replica import Replica
from tests.e2e.systems import Process, wait_for
from tests.integration.engine_bench import MIB, network_for_publishing, until
from tests.integration.replica_bench import PORT, ReplicaBench, replica_bench
from tests.running_api import run_private_api
from tests.services import require_docker
from tests.tcp_proxy import Mode, TcpProxy


@pytest.fixture
def bench(postgres_url: str, tmp_path: Path) -> Iterator[ReplicaBench]:
    require_docker()
    with run_private_api(postgres_url, tmp_path / "data") as api, replica_bench(api, tmp_path / "work") as made:
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


def test_a_replica_counts_as_ready_once_it_says_so(bench: ReplicaBench) -> None:
    bench.register(protocol="kserve", ready_after_s=1.5)
    with bench.consumer():
        bench.deploy(protocol="kserve")
        assert bench.replica(ReplicaStatus.STARTING).address is None
        assert bench.replica().address is not None


def test_a_container_that_ends_is_told_with_its_exit_code_and_log_and_another_one_comes(bench: ReplicaBench) -> None:
    bench.register()
    with bench.consumer():
        bench.deploy()
        first = bench.replica()
        with pytest.raises(grpc.RpcError):
            bench.call(first, "Exit", b"3")
        ended = bench.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (first.uid, ReplicaReason.CONTAINER_ENDED)
        assert ended.detail is not None
        assert ended.detail.startswith("the container ended with exit code 3; its log ends with:\n")
        assert ended.detail.endswith("ending as told")
        second = bench.replica()
        assert second.uid != first.uid
        assert bench.call(second, "Say", b"again") == b"again"


def test_a_container_that_eats_its_memory_is_named(bench: ReplicaBench) -> None:
    bench.register(eat_memory=True, memory_limit_bytes=64 * MIB)
    with bench.consumer():
        bench.deploy()
        ended = bench.replica(ReplicaStatus.ENDED)
        assert ended.reason is ReplicaReason.CONTAINER_ENDED
        assert f"the container needed more than its {64 * MIB} bytes of memory" in (ended.detail or "")


def test_a_container_that_does_not_become_ready_in_time_is_ended(bench: ReplicaBench) -> None:
    bench.register(ready_after_s=3600)
    with bench.consumer():
        bench.deploy(start_timeout_s=2)
        ended = bench.replica(ReplicaStatus.ENDED)
        assert ended.reason is ReplicaReason.NOT_READY
        assert ended.detail is not None
        assert ended.detail.startswith("it was not ready within 2 s: grpc.health.v1 answers with status 2; its log")
        assert f"starting on {PORT}" in ended.detail
        assert bench.view().status is DeploymentStatus.FAILING


def test_a_missing_image_is_told(bench: ReplicaBench) -> None:
    bench.register(image="is-replica:nowhere")
    with bench.consumer():
        bench.deploy()
        ended = bench.replica(ReplicaStatus.ENDED)
        assert ended.reason is ReplicaReason.IMAGE_NOT_FOUND
        assert "is-replica:nowhere is not on this host" in (ended.detail or "")


def test_a_model_that_cannot_be_unpacked_is_told(bench: ReplicaBench) -> None:
    bench.register()
    bench.deploy()
    bench.replica(ReplicaStatus.WANTED)
    with bench.host() as host:
        claimed = host.api.claim_replica(ReplicaClaim(consumer=host.consumer))
        assert claimed is not None
        # As if the consumer knew of a smaller limit than the server that registered the model.
        Replica(host, bench.network, claimed.model_copy(update={"max_unpacked_bytes": 1})).run()
    ended = bench.replica(ReplicaStatus.ENDED)
    assert ended.reason is ReplicaReason.MODEL_REJECTED
    assert (ended.detail or "").startswith("the model's zip was rejected: ")
    assert not bench.containers()


def test_a_consumer_hosts_no_more_than_its_slots(bench: ReplicaBench) -> None:
    for model in ("one", "two"):
        bench.register(model)
    with bench.consumer(slots=1):
        bench.deploy("one")
        bench.replica(model="one")
        bench.deploy("two")
        waiting = bench.replica(ReplicaStatus.WANTED, "two")
        bench.undeploy("one")
        assert bench.replica(model="two").uid == waiting.uid
        assert len(bench.containers()) == 1


def test_a_replica_that_was_given_to_others_is_removed(bench: ReplicaBench) -> None:
    bench.register()
    with bench.consumer() as running:
        bench.deploy()
        lost = bench.replica()
        (container,) = bench.containers()
        end = ReplicaEnd(consumer="somebody", reason=ReplicaReason.LOST, detail="as if its lease had expired")
        with bench.api.consumer() as api:
            api.end_replica(lost.uid, int(container["Labels"]["inference-server.fence"]), end)
        until(lambda: container["Id"] not in [left["Id"] for left in bench.containers()])
        assert bench.replica().uid != lost.uid
        running.stop()


def test_a_replica_serves_on_while_the_private_api_is_away(
    bench: ReplicaBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.register()
    with TcpProxy(bench.api.url, 80) as proxy, bench.consumer(api_url=proxy.url):
        bench.deploy()
        replica = bench.replica()
        (container,) = bench.containers()
        proxy.set_mode(Mode.REFUSE)
        until(lambda: "heartbeats are not answered" in caplog.text)
        # A container that ends meanwhile is told once the private API is back.
        assert bench.call(replica, "Say", b"away") == b"away"
        with pytest.raises(grpc.RpcError):
            bench.call(replica, "Exit", b"4")
        until(lambda: not bench.containers())
        assert bench.view().replicas[0].status is ReplicaStatus.READY
        proxy.set_mode(Mode.PASS)
        assert "exit code 4" in (bench.replica(ReplicaStatus.ENDED).detail or "")
        assert container["Id"] not in [left["Id"] for left in bench.containers()]


def test_a_stopped_consumer_leaves_its_replicas_and_adopts_them(bench: ReplicaBench) -> None:
    bench.register()
    with bench.consumer():
        bench.deploy()
        before = bench.replica()
        (container,) = bench.containers()
    assert bench.call(before, "Say", b"alone") == b"alone"
    with bench.consumer():
        bench.undeploy()
        until(lambda: not bench.containers())
        assert container["Labels"]["inference-server.replica"] == before.uid


def test_a_container_that_ended_while_its_consumer_was_down_is_told(bench: ReplicaBench) -> None:
    bench.register()
    with bench.consumer():
        bench.deploy()
        before = bench.replica()
    with pytest.raises(grpc.RpcError):
        bench.call(before, "Exit", b"5")
    with bench.consumer():
        ended = bench.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (before.uid, ReplicaReason.CONTAINER_ENDED)
        assert "exit code 5" in (ended.detail or "")


def test_a_consumer_without_the_network_says_so_runs_tasks_and_gives_its_replicas_back(
    bench: ReplicaBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.register()
    with bench.consumer():
        bench.deploy()
        before = bench.replica()
    with bench.consumer(replica_network="is-test-nowhere"):
        ended = bench.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (before.uid, ReplicaReason.RELEASED)
        assert not bench.containers()
        uid = bench.submit()
        until(lambda: bench.task(uid).status is Status.FINISHED)
    assert "has no network is-test-nowhere" in caplog.text
    assert "docker network create --internal is-test-nowhere" in caplog.text


def test_a_published_replica_is_reached_at_the_hosts_address_and_adopted(
    bench: ReplicaBench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench.register()
    with network_for_publishing(bench.docker) as network:
        settings = {"replica_network": network, "replica_publish_address": "127.0.0.2"}
        with bench.consumer(**settings):
            bench.deploy()
            before = bench.replica()
            assert (before.address or "").startswith("127.0.0.2:")
            assert bench.call(before, "Say", b"hello") == b"hello"
        with bench.consumer(**settings):
            until(lambda: "adopting the container" in caplog.text)
            assert bench.call(bench.replica(), "Say", b"again") == b"again"
            assert (bench.replica().uid, bench.replica().address) == (before.uid, before.address)
            bench.undeploy()
            until(lambda: not bench.containers())


def test_an_internal_network_is_refused_where_replicas_are_to_be_published(
    bench: ReplicaBench, caplog: pytest.LogCaptureFixture
) -> None:
    with bench.consumer(replica_publish_address="127.0.0.1"):
        until(lambda: "is internal and publishes no ports" in caplog.text)
    assert "docker network create --opt com.docker.network.bridge.enable_ip_masquerade=false" in caplog.text


def test_a_killed_consumer_adopts_the_same_container_under_the_same_fence(bench: ReplicaBench, tmp_path: Path) -> None:
    bench.register()
    command = [sys.executable, "-m", "job_consumer"]
    consumer = Process("consumer", command, bench.consumer_environment(), tmp_path / "consumer.log")
    consumer.start()
    try:
        bench.deploy()
        before = bench.replica()
        (container,) = bench.containers()
        consumer.kill()
        assert bench.call(before, "Say", b"alone") == b"alone"
        consumer.start()
        wait_for(lambda: consumer.output().count("ready at") == 2, 30, consumer.output)
        (after,) = bench.view().replicas
        assert (after.uid, after.status) == (before.uid, ReplicaStatus.READY)
        assert [left["Id"] for left in bench.containers()] == [container["Id"]]
        assert f"adopting the container of fence {container['Labels']['inference-server.fence']}" in consumer.output()
        bench.undeploy()
        until(lambda: not bench.containers())
    finally:
        consumer.end()
