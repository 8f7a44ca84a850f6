"""Replicas on a real Engine under a real private API: hosted, probed, watched, adopted, ended."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import sleep

import grpc
import pytest

from contract.deployments import DeploymentStatus, GatewayReport, ReplicaEnd, ReplicaReason, ReplicaStatus
from contract.statuses import Status
from tests.e2e.systems import Process
from tests.integration.engine_harness import MIB, network_for_publishing
from tests.integration.replica_harness import PORT, ReplicaHarness, hosted, replica_harness
from tests.running_api import claim_waiting_replica, run_private_api
from tests.services import require_docker
from tests.tcp_proxy import Mode, TcpProxy
from tests.waiting import wait_until


@pytest.fixture
def harness(postgres_url: str, tmp_path: Path) -> Iterator[ReplicaHarness]:
    require_docker()
    with run_private_api(postgres_url, tmp_path / "data") as api, replica_harness(api, tmp_path / "work") as made:
        yield made


def test_a_replica_is_hosted_answers_and_ends_with_its_deployment(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy()
        replica = harness.replica()
        assert replica.consumer == harness.name
        assert harness.call(replica, "Say", b"hello") == b"hello"
        assert len(harness.containers()) == 1
        (guard,) = harness.docker.containers(filters={"label": f"inference-server.guard={replica.uid}"})
        assert replica.address == f"{guard['NetworkSettings']['Networks'][harness.network]['IPAddress']}:{PORT}"
        told = json.loads(harness.call(replica, "Environment"))
        assert (told["REPLICA_UID"], told["DEPLOYMENT"], told["MODEL_DIR"]) == (replica.uid, "warm", "/model")
        assert (told["PORT"], told["HOME"], told["NVIDIA_VISIBLE_DEVICES"]) == (str(PORT), "/tmp", "void")
        harness.undeploy()
        wait_until(lambda: not harness.containers())
    assert not harness.docker.containers(all=True, filters={"label": f"inference-server.guard={replica.uid}"})
    assert list((harness.work_dir / "replicas" / harness.name).iterdir()) == []
    labels = {"label": f"inference-server.replica={replica.uid}"}
    assert not harness.docker.volumes(filters=labels)["Volumes"]


def test_a_replica_counts_as_ready_once_it_says_so(harness: ReplicaHarness) -> None:
    harness.register(protocol="kserve", ready_after_s=1.5)
    with harness.consumer():
        harness.deploy(protocol="kserve")
        assert harness.replica(ReplicaStatus.STARTING).address is None
        assert harness.replica().address is not None


def test_a_container_that_ends_is_told_with_its_exit_code_and_log_and_another_one_comes(
    harness: ReplicaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "job_consumer.replicas")
    harness.register()
    with harness.consumer():
        harness.deploy()
        first = harness.replica()
        with pytest.raises(grpc.RpcError):
            harness.call(first, "Exit", b"3")
        ended = harness.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (first.uid, ReplicaReason.CONTAINER_ENDED)
        assert ended.detail is not None
        assert ended.detail.startswith("the container ended with exit code 3; its log ends with:\n")
        assert ended.detail.endswith("ending as told")
        assert ended.summary == "the container ended with exit code 3"
        assert f"replica={first.uid} ends: container_ended the container ended with exit code 3" in caplog.messages
        assert "ending as told" not in caplog.text
        second = harness.replica()
        assert second.uid != first.uid
        assert harness.call(second, "Say", b"again") == b"again"


def test_a_container_that_eats_its_memory_is_named(harness: ReplicaHarness) -> None:
    harness.register(eat_memory=True, memory_limit_bytes=64 * MIB)
    with harness.consumer():
        harness.deploy()
        # Of one of its replicas, each of which ends so: the Engine loses the kernel's notice now and then.
        told = f"the container needed more than its {64 * MIB} bytes of memory"
        wait_until(lambda: told in (harness.replica(ReplicaStatus.ENDED).detail or ""))
        assert harness.replica(ReplicaStatus.ENDED).reason is ReplicaReason.CONTAINER_ENDED


def test_a_replica_has_the_limits_of_its_model(harness: ReplicaHarness) -> None:
    harness.register(shared_memory_bytes=32 * MIB, temporary_bytes=24 * MIB, pids_limit=300, cpus=0.5)
    with harness.consumer():
        harness.deploy()
        harness.replica()
        (container,) = harness.containers()
        host = harness.docker.inspect_container(container)["HostConfig"]
    assert (host["ShmSize"], host["PidsLimit"], host["NanoCpus"]) == (32 * MIB, 300, 5 * 10**8)
    assert f"size={24 * MIB}," in host["Tmpfs"]["/tmp"]


def test_a_replica_that_hits_a_limit_of_its_model_names_it(harness: ReplicaHarness) -> None:
    harness.register(threads=40, pids_limit=16)
    with harness.consumer():
        harness.deploy()
        told = "it needed more than the 16 processes and threads that it may have (pids_limit)"
        wait_until(lambda: told in (harness.replica(ReplicaStatus.ENDED).detail or ""))


def test_a_container_that_does_not_become_ready_in_time_is_ended(harness: ReplicaHarness) -> None:
    harness.register(ready_after_s=3600)
    with harness.consumer():
        harness.deploy(start_timeout_s=2)
        ended = harness.replica(ReplicaStatus.ENDED)
        assert ended.reason is ReplicaReason.NOT_READY
        assert ended.detail is not None
        assert ended.detail.startswith("it was not ready within 2 s: grpc.health.v1 answers with status 2; its log")
        assert f"starting on {PORT}" in ended.detail
        assert harness.view().status is DeploymentStatus.FAILING


def test_a_replica_that_is_not_ready_says_what_its_probe_heard(harness: ReplicaHarness) -> None:
    harness.register(protocol="tensorflow")
    with harness.consumer():
        # The container knows its model as "known".
        harness.deploy(protocol="tensorflow")
        wait_until(lambda: "Could not find any versions of model" in (harness.view().detail or ""))
        assert "unrouted_model_names" in (harness.replica(ReplicaStatus.STARTING).detail or "")
        harness.deploy(protocol="tensorflow", unrouted_model_names=["known"])
        assert harness.replica().detail is None


def test_two_containers_with_the_same_model_inside_stand_side_by_side(harness: ReplicaHarness) -> None:
    with harness.consumer():
        for model in ("service1", "service2"):
            harness.register(model, protocol="tensorflow")
            harness.deploy(model, protocol="tensorflow", prefix=model, unrouted_model_names=["known"])
        assert harness.replica(model="service1").address != harness.replica(model="service2").address


def test_a_container_that_routes_to_its_applications_late_is_replaced_without_a_gap(harness: ReplicaHarness) -> None:
    """As Ray Serve does: it speaks gRPC long before it knows the application."""
    harness.register(protocol="ray", ready_after_s=3)
    with harness.consumer():
        harness.deploy(protocol="ray", applications=["app"])
        wait_until(lambda: "ListApplications names none; missing: app" in (harness.view().detail or ""))
        before = harness.replica()
        harness.register(protocol="ray", ready_after_s=4)
        harness.deploy(protocol="ray", applications=["app"])
        while True:
            ready = [replica for replica in harness.view().replicas if replica.status is ReplicaStatus.READY]
            assert ready, "nothing answers while the replica is replaced"
            assert harness.call(ready[0], "Say", b"x") == b"x"
            if ready[0].uid != before.uid:
                break
        harness.undeploy()
        wait_until(lambda: not harness.containers())


def test_a_container_that_computes_in_its_only_thread_gets_no_calls_meanwhile_and_lives(
    harness: ReplicaHarness,
) -> None:
    harness.register(workers=1)
    with harness.consumer(), ThreadPoolExecutor(1) as pool:
        harness.deploy(liveness_timeout_s=2)
        replica = harness.replica()
        call = pool.submit(harness.call, replica, "Work", b"15")
        report = GatewayReport(gateway="g", deployments={}, replicas={replica.uid: 1}).model_dump(mode="json")
        details: set[str | None] = set()
        while not call.done():
            # A gateway that has the call open says so about once a second.
            harness.http.post("/internal/gateways/reports", json=report).raise_for_status()
            (left,) = harness.view().replicas
            assert left.uid == replica.uid
            details.add(left.detail and left.detail[:21])
            sleep(0.2)
        assert call.result() == b"15"
        assert details == {None, "not ready any more: D"}
        assert harness.replica().uid == replica.uid


def test_a_container_that_answers_nothing_any_more_is_replaced(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy(liveness_timeout_s=2)
        frozen = harness.replica()
        harness.call(frozen, "Freeze")
        ended = harness.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (frozen.uid, ReplicaReason.NOT_READY)
        assert (ended.detail or "").startswith("it was ready, and then not for more than 2 s: DEADLINE_EXCEEDED")
        assert harness.replica().uid != frozen.uid


def test_a_missing_image_is_told(harness: ReplicaHarness) -> None:
    harness.register(image="is-replica:nowhere")
    with harness.consumer():
        harness.deploy()
        ended = harness.replica(ReplicaStatus.ENDED)
        assert ended.reason is ReplicaReason.IMAGE_NOT_FOUND
        assert "is-replica:nowhere is not on this host" in (ended.detail or "")


def test_a_model_that_cannot_be_unpacked_is_told(harness: ReplicaHarness) -> None:
    harness.register()
    harness.deploy()
    harness.replica(ReplicaStatus.WANTED)
    with harness.context() as context:
        claimed = claim_waiting_replica(context.api, context.consumer)
        # As if the consumer knew of a smaller limit than the server that registered the model.
        hosted(context, claimed.model_copy(update={"max_unpacked_bytes": 1})).run()
    ended = harness.replica(ReplicaStatus.ENDED)
    assert ended.reason is ReplicaReason.MODEL_REJECTED
    assert (ended.detail or "").startswith("the model's zip was rejected: ")
    assert not harness.containers()


def test_a_consumer_hosts_no_more_than_its_slots(harness: ReplicaHarness) -> None:
    for model in ("one", "two"):
        harness.register(model)
    with harness.consumer(slots=1):
        harness.deploy("one")
        harness.replica(model="one")
        harness.deploy("two")
        waiting = harness.replica(ReplicaStatus.WANTED, "two")
        harness.undeploy("one")
        assert harness.replica(model="two").uid == waiting.uid
        assert len(harness.containers()) == 1


def test_a_replica_that_was_given_to_others_is_removed(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer() as running:
        harness.deploy()
        lost = harness.replica()
        (container,) = harness.containers()
        end = ReplicaEnd(consumer="somebody", reason=ReplicaReason.LOST, detail="as if its lease had expired")
        with harness.api.consumer() as api:
            api.end_replica(lost.uid, int(container["Labels"]["inference-server.fence"]), end)
        wait_until(lambda: container["Id"] not in [left["Id"] for left in harness.containers()])
        assert harness.replica().uid != lost.uid
        running.stop()


def test_a_replica_serves_on_while_the_private_api_is_away(
    harness: ReplicaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.register()
    with TcpProxy(harness.api.url, 80) as proxy, harness.consumer(api_url=proxy.url):
        harness.deploy()
        replica = harness.replica()
        (container,) = harness.containers()
        proxy.set_mode(Mode.REFUSE)
        wait_until(lambda: "heartbeats are not answered" in caplog.text)
        # A container that ends meanwhile is told once the private API is back.
        assert harness.call(replica, "Say", b"away") == b"away"
        with pytest.raises(grpc.RpcError):
            harness.call(replica, "Exit", b"4")
        wait_until(lambda: not harness.containers())
        assert harness.view().replicas[0].status is ReplicaStatus.READY
        proxy.set_mode(Mode.PASS)
        assert "exit code 4" in (harness.replica(ReplicaStatus.ENDED).detail or "")
        assert container["Id"] not in [left["Id"] for left in harness.containers()]


def test_a_stopped_consumer_leaves_its_replicas_and_adopts_them(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy()
        before = harness.replica()
        (container,) = harness.containers()
    assert harness.call(before, "Say", b"alone") == b"alone"
    with harness.consumer():
        harness.undeploy()
        wait_until(lambda: not harness.containers())
        assert container["Labels"]["inference-server.replica"] == before.uid


def test_a_replica_whose_tokens_are_void_is_replaced(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy()
        before = harness.replica()
    api = harness.api
    with (
        run_private_api(api.database_url, api.data_dir, service_token="another-token-of-the-tests") as changed,
        changed.client() as http,
        replace(harness, api=changed, http=http).consumer(),
    ):
        ended = harness.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (before.uid, ReplicaReason.RELEASED)
        assert "the service token has changed since its container was started" in (ended.detail or "")
        assert harness.replica().uid != before.uid
        harness.undeploy()
        wait_until(lambda: not harness.containers())


def test_a_container_that_ended_while_its_consumer_was_down_is_told(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy()
        before = harness.replica()
    with pytest.raises(grpc.RpcError):
        harness.call(before, "Exit", b"5")
    with harness.consumer():
        ended = harness.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (before.uid, ReplicaReason.CONTAINER_ENDED)
        assert "exit code 5" in (ended.detail or "")


def test_a_consumer_without_the_network_says_so_runs_tasks_and_gives_its_replicas_back(
    harness: ReplicaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy()
        before = harness.replica()
    with harness.consumer(replica_network="is-test-nowhere"):
        ended = harness.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (before.uid, ReplicaReason.RELEASED)
        assert not harness.containers()
        uid = harness.submit()
        wait_until(lambda: harness.task(uid).status is Status.FINISHED)
    assert "has no network is-test-nowhere" in caplog.text
    assert "docker network create --internal is-test-nowhere" in caplog.text


def test_a_replica_whose_guard_was_ended_is_replaced(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy()
        before = harness.replica()
        (guard,) = harness.docker.containers(filters={"label": f"inference-server.guard={before.uid}"})
        harness.docker.remove_container(guard["Id"], force=True)
        ended = harness.replica(ReplicaStatus.ENDED)
        assert (ended.uid, ended.reason) == (before.uid, ReplicaReason.RELEASED)
        assert ended.summary == "the container that guards its network was ended"
        wait_until(lambda: harness.replica().uid != before.uid)
        assert harness.call(harness.replica(), "Say", b"again") == b"again"


def test_where_replicas_cannot_be_guarded_none_that_runs_tasks_is_hosted(
    harness: ReplicaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.register()
    harness.register("live")
    # An image without nft.
    with harness.consumer(guard_image="busybox:1.37"):
        harness.deploy("live")
        assert harness.call(harness.replica(model="live"), "Say", b"hello") == b"hello"
        harness.deploy(serves_tasks=True)
        wait_until(lambda: "can keep them from what else is on its network" in str(harness.view().replicas[0].summary))
        assert harness.view().replicas[0].status is ReplicaStatus.WANTED
    assert "/bin/sh: nft: not found" in caplog.text
    with harness.consumer():
        harness.replica()


def test_no_replica_has_the_port_at_which_containers_call_the_gateway(harness: ReplicaHarness) -> None:
    harness.register()
    with harness.consumer():
        harness.deploy(port=9002)
        ended = harness.replica(ReplicaStatus.ENDED)
        assert ended.reason is ReplicaReason.NOT_READY
        assert ended.summary == "its port 9002 is the one at which containers call the gateway; take another"


def test_a_published_replica_is_reached_at_the_hosts_address_and_adopted(
    harness: ReplicaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    harness.register()
    with network_for_publishing(harness.docker) as network:
        settings = {"replica_network": network, "replica_publish_address": "127.0.0.2"}
        with harness.consumer(**settings):
            harness.deploy()
            before = harness.replica()
            assert (before.address or "").startswith("127.0.0.2:")
            assert harness.call(before, "Say", b"hello") == b"hello"
        with harness.consumer(**settings):
            wait_until(lambda: "adopting the container" in caplog.text)
            assert harness.call(harness.replica(), "Say", b"again") == b"again"
            assert (harness.replica().uid, harness.replica().address) == (before.uid, before.address)
            harness.undeploy()
            wait_until(lambda: not harness.containers())


def test_an_internal_network_is_refused_where_replicas_are_to_be_published(
    harness: ReplicaHarness, caplog: pytest.LogCaptureFixture
) -> None:
    with harness.consumer(replica_publish_address="127.0.0.1"):
        wait_until(lambda: "is internal and publishes no ports" in caplog.text)
    assert "docker network create --opt com.docker.network.bridge.enable_ip_masquerade=false" in caplog.text


def test_a_killed_consumer_adopts_the_same_container_under_the_same_fence(
    harness: ReplicaHarness, tmp_path: Path
) -> None:
    harness.register()
    command = [sys.executable, "-m", "job_consumer"]
    consumer = Process("consumer", command, harness.consumer_environment(), tmp_path / "consumer.log")
    consumer.start()
    try:
        harness.deploy()
        before = harness.replica()
        (container,) = harness.containers()
        consumer.kill()
        assert harness.call(before, "Say", b"alone") == b"alone"
        consumer.start()
        wait_until(lambda: consumer.output().count("ready at") == 2, consumer.output)
        (after,) = harness.view().replicas
        assert (after.uid, after.status) == (before.uid, ReplicaStatus.READY)
        assert [left["Id"] for left in harness.containers()] == [container["Id"]]
        assert f"adopting the container of fence {container['Labels']['inference-server.fence']}" in consumer.output()
        harness.undeploy()
        wait_until(lambda: not harness.containers())
    finally:
        consumer.end()
