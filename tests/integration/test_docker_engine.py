"""What only the Docker engine promises: the hardened profile, images and registries, nothing left behind."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError

from job_consumer.docker_engine import DockerEngine
from job_consumer.docker_errors import start_error
from job_consumer.engine import EngineUnavailable, ImageNotFound, Network, Publication, RunKind, RunState
from tests.integration.engine_bench import (
    MIB,
    Bench,
    build_image,
    docker_bench,
    leftovers,
    network_for_publishing,
    until,
)
from tests.services import require_docker


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(docker.APIClient(version="auto")) as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, client: docker.APIClient) -> Iterator[Bench]:
    with docker_bench(tmp_path / "work", client) as made:
        yield made


def test_the_container_is_created_with_the_hardened_profile(bench: Bench, client: docker.APIClient) -> None:
    spec = bench.spec("true", gpu_uuid="GPU-1234", cpu_limit=0.5)
    bench.engine.start(spec)
    container = client.inspect_container(spec.key.name)
    host = container["HostConfig"]
    assert container["Config"]["User"] == "65532:65532"
    assert container["Config"]["Labels"] == {
        "inference-server.task": spec.key.uid,
        "inference-server.fence": "1",
        "inference-server.consumer": bench.consumer,
    }
    expected = {
        "NetworkMode": "none",
        "IpcMode": "private",
        "PidMode": "",
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "ReadonlyRootfs": True,
        "Memory": 64 * MIB,
        "MemorySwap": 64 * MIB,
        "OomKillDisable": False,
        "NanoCpus": 500_000_000,
        "PidsLimit": 64,
        "ShmSize": 16 * MIB,
        "Ulimits": [{"Name": "nofile", "Hard": 16384, "Soft": 16384}, {"Name": "core", "Hard": 0, "Soft": 0}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(MIB), "max-file": "1"}},
        "Init": True,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "Binds": None,
        "Devices": None,
    }
    assert {name: host[name] for name in expected} == expected
    assert [request["DeviceIDs"] for request in host["DeviceRequests"]] == [["GPU-1234"]]
    assert {mount["Destination"]: mount["RW"] for mount in container["Mounts"]} == {
        "/input": False,
        "/output": True,
        "/model": False,
    }


def test_the_profile_holds_inside_the_container(bench: Bench) -> None:
    script = """
    grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
    id -u; id -g; ls /sys/class/net
    touch /x 2>&1; wget -T 2 -q -O - http://10.0.0.1/ 2>&1
    df -k /tmp | tail -1 | awk '{print $2}'
    touch /tmp/ok && echo written; ulimit -c; ulimit -n
    env | grep ^NVIDIA_ | sort
    """
    key, _ = bench.run(script, gpu_uuid="GPU-1234")
    assert [line.replace("\t", " ") for line in bench.log_of(key).splitlines()] == [
        "CapBnd: 0000000000000000".replace("Bnd", "Eff"),
        "CapBnd: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "65532",
        "65532",
        "lo",
        "touch: /x: Read-only file system",
        "wget: can't connect to remote host (10.0.0.1): Network is unreachable",
        "8192",
        "written",
        "0",
        "16384",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "NVIDIA_VISIBLE_DEVICES=GPU-1234",
    ]


def test_a_replica_is_on_its_network_alone_and_reached_from_here(bench: Bench, client: docker.APIClient) -> None:
    network = f"is-test-{bench.consumer}"
    engine = bench.engine
    assert isinstance(engine, DockerEngine)
    engine.make_network(network)
    engine.make_network(network)
    assert engine.find_network(network) == Network(is_internal=True)
    assert engine.network_host(network) == client.inspect_network(network)["IPAM"]["Config"][0]["Gateway"]
    try:
        script = "while true; do echo hello | nc -l -p 9000; done"
        spec = bench.spec(script, network=network)
        mounts = tuple(mount for mount in spec.mounts if mount.kept)
        key = replace(spec.key, kind=RunKind.REPLICA)
        bench.keys.append(key)
        bench.engine.start(replace(spec, key=key, mounts=mounts))
        container = client.inspect_container(f"is-replica-{key.uid}-1")
        assert container["HostConfig"]["NetworkMode"] == network
        assert list(container["NetworkSettings"]["Networks"]) == [network]
        assert container["Config"]["Labels"] == {
            "inference-server.replica": key.uid,
            "inference-server.fence": "1",
            "inference-server.consumer": bench.consumer,
        }
        assert bench.engine.find(bench.consumer) == [(key, RunState.RUNNING)]
        address = bench.engine.address(key, 9000)
        assert address is not None
        until(lambda: answer_of(address) == b"hello\n")
        bench.engine.remove(key)
        assert bench.engine.find(bench.consumer) == []
    finally:
        bench.engine.remove(key)
        client.remove_network(network)


def answer_of(address: str) -> bytes:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def test_a_published_replica_is_reached_at_an_address_of_the_host(bench: Bench, client: docker.APIClient) -> None:
    with network_for_publishing(client) as network:
        assert bench.engine.find_network(network) == Network(is_internal=False)
        script = "while true; do echo hello | nc -l -p 9000; done"
        publication = Publication("127.0.0.2", 9000)
        keys = [bench.start(script, network=network, publication=publication) for _ in range(2)]
        addresses = [bench.engine.address(key, 9000) for key in keys]
        assert len(set(addresses)) == 2
        for address in addresses:
            assert address is not None
            assert address.startswith("127.0.0.2:")
            until(lambda address=address: answer_of(address) == b"hello\n")
            assert not answer_of(address.replace("127.0.0.2", "127.0.0.1")), "it is published at every address"
        bench.engine.stop(keys[0], 0)
        bench.end_of(keys[0])
        assert bench.engine.address(keys[0], 9000) is None
        for key in keys:
            bench.engine.remove(key)


def test_runs_on_such_a_network_see_neither_each_other_nor_names_outside(
    bench: Bench, client: docker.APIClient
) -> None:
    with network_for_publishing(client) as network:
        script = "while true; do echo hello | nc -l -p 9000; done"
        listener = bench.start(script, network=network, publication=Publication("127.0.0.1", 9000))
        published = bench.engine.address(listener, 9000)
        assert published is not None
        until(lambda: answer_of(published) == b"hello\n")
        networks = client.inspect_container(listener.name)["NetworkSettings"]["Networks"]
        address = networks[network]["IPAddress"]
        other, _ = bench.run(
            f"cat /etc/resolv.conf; nc -w 3 {address} 9000 </dev/null || echo unreached; nslookup example.org || true",
            network=network,
        )
        log = bench.log_of(other)
        assert "unreached" in log
        assert "hello" not in log
        assert "Address: 9" not in log
        assert client.inspect_container(other.name)["HostConfig"]["Dns"] == ["127.0.0.1"]
        for key in (listener, other):
            bench.engine.remove(key)


def test_a_fork_bomb_hits_the_limit_of_processes(bench: Bench) -> None:
    key, ended = bench.run("for i in $(seq 40); do sleep 30 & done; echo all", pids_limit=16)
    assert ended.exit_code != 0
    assert "all" not in bench.log_of(key)


def test_compatible_isolation_is_the_images_own_user_on_a_writable_root(bench: Bench, client: docker.APIClient) -> None:
    image = build_image(
        client, 'RUN chmod 1777 /tmp\nUSER 1234\nCMD ["/bin/sh", "-c", "id -u; touch /tmp/x && echo ok"]'
    )
    key, ended = bench.run("", image=image, isolation="compatible", user=None)
    assert (ended.exit_code, bench.log_of(key)) == (0, "1234\nok\n")
    image = build_image(client, 'CMD ["/bin/sh", "-c", "touch /x && id -u"]')
    key, ended = bench.run("", image=image, isolation="compatible", user=None)
    assert (ended.exit_code, bench.log_of(key)) == (0, "0\n")


def test_what_the_image_has_at_the_mounts_does_not_show(bench: Bench, client: docker.APIClient) -> None:
    image = build_image(
        client, 'RUN mkdir /output /input && touch /output/stray /input/stray\nCMD ["ls", "/input", "/output"]'
    )
    key, _ = bench.run("", image=image)
    assert "stray" not in bench.log_of(key)
    assert not bench.output(key, "stray").exists()


def test_removing_leaves_the_models_volume_and_nothing_else(bench: Bench, client: docker.APIClient) -> None:
    image = build_image(client, 'VOLUME /scratch\nCMD ["true"]')
    first, _ = bench.run("the same model", image=image)
    second, _ = bench.run("the same model", image=image)
    used = {
        mount["Name"]: mount["Destination"]
        for key in (first, second)
        for mount in client.inspect_container(key.name)["Mounts"]
    }
    # Input, output and the nameless volume of each, and the model both share.
    assert len(used) == 7
    for key in (first, second):
        bench.engine.remove(key)
    assert leftovers(client, [first, second]) == []
    left = {volume["Name"] for volume in client.volumes()["Volumes"] or []} & set(used)
    assert [(used[name], name.startswith("is-model-")) for name in left] == [("/model", True)]
    third, ended = bench.run("cat /model/weights.txt")
    assert (ended.exit_code, bench.log_of(third)) == (0, "weights\n")


def test_equal_names_in_another_work_directory_are_other_volumes(
    bench: Bench, client: docker.APIClient, tmp_path: Path
) -> None:
    script = "cat /model/weights.txt"
    with docker_bench(tmp_path / "other", client) as other:
        key, _ = bench.run(script)
        (model,) = [mount.folder for mount in other.spec(script).mounts if mount.kept]
        (model / "weights.txt").write_text("other weights\n")
        other_key, _ = other.run(script)
        assert (bench.log_of(key), other.log_of(other_key)) == ("weights\n", "other weights\n")


def test_a_container_that_was_created_but_not_started_is_found_and_started(
    bench: Bench, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.spec("exit 4")

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(docker.APIClient, "start", fail)
        with pytest.raises(EngineUnavailable):
            bench.engine.start(spec)
    assert bench.engine.find(bench.consumer) == [(spec.key, RunState.CREATED)]
    assert bench.engine.wait(spec.key, 0.3) is None
    bench.engine.stop(spec.key, 1)
    bench.engine.start(spec)
    assert bench.end_of(spec.key).exit_code == 4


def test_what_carries_our_label_but_names_no_run_is_left_alone(
    bench: Bench, client: docker.APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"inference-server.consumer": bench.consumer, "inference-server.fence": "one"}
    stray = client.create_container("busybox:1.37", labels=labels)["Id"]
    assert bench.engine.find(bench.consumer) == []
    assert stray in caplog.text


def test_a_command_that_cannot_be_executed_names_itself(bench: Bench, client: docker.APIClient) -> None:
    image = build_image(client, 'CMD ["/no/such/program"]')
    key, ended = bench.run("", image=image)
    assert ended.exit_code == 127
    assert "/no/such/program" in bench.log_of(key)


def test_an_image_without_a_command_or_with_an_unknown_user_is_refused(bench: Bench, client: docker.APIClient) -> None:
    image = build_image(client, "CMD []")
    with pytest.raises(ImageNotFound, match="cannot be executed: No command specified"):
        bench.engine.start(bench.spec("", image=image))
    image = build_image(client, 'USER nobody-knows-me\nCMD ["true"]')
    with pytest.raises(ImageNotFound, match="unable to find user nobody-knows-me"):
        bench.engine.start(bench.spec("", image=image, isolation="compatible", user=None))


def test_starting_an_image_that_vanished_says_so(bench: Bench) -> None:
    with pytest.raises(ImageNotFound, match="not on this host any more"):
        bench.engine.start(bench.spec("", image="is-test:vanished"))


@pytest.mark.parametrize(
    ("explanation", "kind", "text"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', EngineUnavailable, "nvidia-ctk"),
        ('OCI runtime create failed: exec: "foo": executable file not found in $PATH', ImageNotFound, "foo"),
        ('exec: "docker-init": executable file not found in $PATH', EngineUnavailable, "docker-init"),
        ("failed to mount local volume: no such file or directory", EngineUnavailable, "mount"),
        (f"container {'ab' * 32} is odd", EngineUnavailable, "container is odd"),
    ],
)
def test_a_failed_start_is_blamed_on_the_image_only_where_it_is_its_fault(
    explanation: str, kind: type[Exception], text: str
) -> None:
    error = start_error(APIError("refused", explanation=explanation))
    assert type(error) is kind
    assert text in str(error)


def test_an_engine_that_does_not_answer_is_unavailable(bench: Bench, tmp_path: Path) -> None:
    spec = bench.spec("true")
    dead = DockerEngine(work_dir=tmp_path, work_volume=None, base_url="tcp://127.0.0.1:1")
    with closing(dead):
        for call in (
            dead.check,
            lambda: dead.ensure_image("busybox:1.37", "missing"),
            lambda: dead.start(spec),
            lambda: dead.find("x"),
            lambda: dead.wait(spec.key, 1),
            lambda: next(dead.follow_log(spec.key, None)),  # type: ignore[arg-type]
            lambda: dead.log_tail(spec.key, 1),
            lambda: dead.find_network("x"),
            lambda: dead.make_network("x"),
            lambda: dead.address(spec.key, 9000),
            lambda: dead.stop(spec.key, 1),
            lambda: dead.remove(spec.key),
        ):
            with pytest.raises(EngineUnavailable, match="no Docker Engine answers"):
                call()


def test_folders_in_a_work_volume_are_seen_by_the_engine(bench: Bench, client: docker.APIClient) -> None:
    volume = client.create_volume("is-test-work")
    try:
        root = Path(volume["Mountpoint"])
        for folder in ("a/input", "a/output"):
            (root / folder).mkdir(parents=True)
        (root / "a/output").chmod(0o777)
        (root / "a/input/scan.txt").write_text("in the volume\n")
        spec = bench.spec("cp /input/scan.txt /output/copy.txt")
        work_dir = Path("/where/the/consumer/sees/it")
        mounts = tuple(
            replace(mount, folder=work_dir / "a" / mount.target[1:]) for mount in spec.mounts if not mount.kept
        )
        with closing(DockerEngine(work_dir=work_dir, work_volume="is-test-work")) as engine:
            engine.start(replace(spec, mounts=mounts))
            state = engine.wait(spec.key, 60)
            assert state is not None
            assert state.exit_code == 0
            assert (root / "a/output/copy.txt").read_text() == "in the volume\n"
            engine.remove(spec.key)
        with (
            closing(DockerEngine(work_dir=work_dir, work_volume="is-test-none")) as engine,
            pytest.raises(EngineUnavailable, match="no volume is-test-none"),
        ):
            engine.start(replace(spec, mounts=mounts))
    finally:
        client.remove_volume("is-test-work")
