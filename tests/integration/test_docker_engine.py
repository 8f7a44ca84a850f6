"""What only the Docker engine promises: the hardened profile, images and registries, nothing left behind."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from job_consumer.engines import (
    EngineUnavailable,
    ExitState,
    ImageNotFound,
    Interruption,
    RunKey,
    RunKind,
    RunState,
    RunVanished,
)
from job_consumer.engines.docker.ending import START_LABEL, engine_start, exit_state
from job_consumer.engines.docker.engine import DockerEngine
from job_consumer.engines.docker.seccomp import choose_profile
from job_consumer.networks import Network, NetworkAccess, Publication
from tests.engine_client import engine_client
from tests.integration.engine_harness import (
    MIB,
    Harness,
    build_image,
    docker_harness,
    leftovers,
    network_for_publishing,
)
from tests.services import require_docker
from tests.waiting import wait_until


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    require_docker()
    with closing(engine_client()) as made:
        yield made


@pytest.fixture
def harness(tmp_path: Path, client: docker.APIClient) -> Iterator[Harness]:
    with docker_harness(tmp_path / "work", client) as made:
        yield made


def test_the_container_is_created_with_the_hardened_profile(harness: Harness, client: docker.APIClient) -> None:
    spec = harness.spec("true", gpu_uuid="GPU-1234", cpu_limit=0.5)
    harness.engine.start(spec)
    container = client.inspect_container(spec.key.name)
    host = container["HostConfig"]
    assert container["Config"]["User"] == "65532:65532"
    assert container["Config"]["Labels"] == {
        "inference-server.task": spec.key.uid,
        "inference-server.fence": "1",
        "inference-server.consumer": harness.consumer,
        "inference-server.engine-start": engine_start(client),
    }
    profile = choose_profile(client.info())
    expected = {
        "NetworkMode": "none",
        "IpcMode": "private",
        "PidMode": "",
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *([f"seccomp={profile}"] if profile else [])],
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
        "/progress": True,
        "/model": False,
    }


def test_the_profile_holds_inside_the_container(harness: Harness) -> None:
    script = """
    grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
    id -u; id -g; ls /sys/class/net
    touch /x 2>&1; wget -T 2 -q -O - http://10.0.0.1/ 2>&1
    df -k /tmp | tail -1 | awk '{print $2}'
    touch /tmp/ok && echo written; ulimit -c; ulimit -n
    env | grep ^NVIDIA_ | sort
    """
    key, _ = harness.run(script, gpu_uuid="GPU-1234")
    assert [line.replace("\t", " ") for line in harness.log_of(key).splitlines()] == [
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


def test_a_replica_is_on_its_network_alone_and_reached_from_here(harness: Harness, client: docker.APIClient) -> None:
    network = f"is-test-{harness.consumer}"
    engine = harness.engine
    assert isinstance(engine, DockerEngine)
    engine.make_network(network)
    engine.make_network(network)
    assert engine.find_network(network) == Network(is_internal=True)
    assert engine.network_host(network) == client.inspect_network(network)["IPAM"]["Config"][0]["Gateway"]
    try:
        script = "while true; do echo hello | nc -l -p 9000; done"
        key = harness.start_replica(script, NetworkAccess(network, 9000))
        container = client.inspect_container(f"is-replica-{key.uid}-1")
        guard = client.inspect_container(f"is-replica-{key.uid}-1-guard")
        assert container["HostConfig"]["NetworkMode"] == f"container:{guard['Id']}"
        assert list(guard["NetworkSettings"]["Networks"]) == [network]
        assert container["Config"]["Labels"] == {
            "inference-server.replica": key.uid,
            "inference-server.fence": "1",
            "inference-server.consumer": harness.consumer,
            "inference-server.engine-start": engine_start(client),
        }
        assert harness.engine.find(harness.consumer) == [(key, RunState.RUNNING)]
        address = harness.replica_engine.address(key, 9000)
        assert address is not None
        wait_until(lambda: answer_of(address) == b"hello\n")
        harness.engine.remove(key)
        assert harness.engine.find(harness.consumer) == []
    finally:
        harness.engine.remove(key)
        client.remove_network(network)


def answer_of(address: str) -> bytes:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def test_the_tail_of_a_log_is_its_last_bytes_while_the_run_lasts_and_after(harness: Harness) -> None:
    key = harness.start('seq 1 5000; echo up > "$OUTPUT_DIR/up"; until [ -e "$OUTPUT_DIR/go" ]; do sleep 0.05; done')
    harness.wait_for_output(key, "up")
    wait_until(lambda: harness.replica_engine.log_tail(key, 10) == b"4999\n5000\n")
    harness.output(key, "go").touch()
    harness.end_of(key)
    assert harness.replica_engine.log_tail(key, 10) == b"4999\n5000\n"


def test_a_run_without_a_network_has_no_address(harness: Harness) -> None:
    assert harness.replica_engine.find_network("is-test-nowhere") is None
    assert harness.replica_engine.address(harness.start("sleep 300"), 9000) is None


def test_an_unknown_replica_has_vanished(harness: Harness) -> None:
    unknown = RunKey("0" * 64, 1, RunKind.REPLICA)
    with pytest.raises(RunVanished):
        harness.replica_engine.log_tail(unknown, 10)
    with pytest.raises(RunVanished):
        harness.replica_engine.address(unknown, 9000)


def test_a_published_replica_is_reached_at_an_address_of_the_host(harness: Harness, client: docker.APIClient) -> None:
    with network_for_publishing(client) as network:
        assert harness.replica_engine.find_network(network) == Network(is_internal=False)
        script = "while true; do echo hello | nc -l -p 9000; done"
        access, publication = NetworkAccess(network, 9000), Publication("127.0.0.2", 9000)
        keys = [harness.start_replica(script, access, publication) for _ in range(2)]
        addresses = [harness.replica_engine.address(key, 9000) for key in keys]
        assert len(set(addresses)) == 2
        for address in addresses:
            assert address is not None
            assert address.startswith("127.0.0.2:")
            wait_until(lambda address=address: answer_of(address) == b"hello\n")
            assert not answer_of(address.replace("127.0.0.2", "127.0.0.1")), "it is published at every address"
        harness.engine.stop(keys[0], 0)
        harness.end_of(keys[0])
        assert harness.replica_engine.address(keys[0], 9000) is None
        for key in keys:
            harness.engine.remove(key)


def test_runs_on_such_a_network_see_neither_each_other_nor_names_outside(
    harness: Harness, client: docker.APIClient
) -> None:
    with network_for_publishing(client) as network:
        script = "while true; do echo hello | nc -l -p 9000; done"
        listener = harness.start_replica(script, NetworkAccess(network, 9000), Publication("127.0.0.1", 9000))
        published = harness.replica_engine.address(listener, 9000)
        assert published is not None
        wait_until(lambda: answer_of(published) == b"hello\n")
        networks = client.inspect_container(f"{listener.name}-guard")["NetworkSettings"]["Networks"]
        address = networks[network]["IPAddress"]
        script = (
            f"cat /etc/resolv.conf; nc -w 3 {address} 9000 </dev/null || echo unreached; nslookup example.org || true"
        )
        other = harness.start_replica(script, NetworkAccess(network, 9000))
        harness.end_of(other)
        log = harness.log_of(other)
        assert "unreached" in log
        assert "hello" not in log
        assert "Address: 9" not in log
        assert client.inspect_container(f"{other.name}-guard")["HostConfig"]["Dns"] == ["127.0.0.1"]
        for key in (listener, other):
            harness.engine.remove(key)


def test_a_fork_bomb_hits_the_limit_of_processes(harness: Harness) -> None:
    key, ended = harness.run("for i in $(seq 40); do sleep 30 & done; echo all", pids_limit=16)
    assert ended.exit_code != 0
    assert "all" not in harness.log_of(key)


def test_compatible_isolation_is_the_images_own_user_on_a_writable_root(
    harness: Harness, client: docker.APIClient
) -> None:
    image = build_image(
        client, 'RUN chmod 1777 /tmp\nUSER 1234\nCMD ["/bin/sh", "-c", "id -u; touch /tmp/x && echo ok"]'
    )
    key, ended = harness.run("", image=image, isolation="compatible", user=None)
    assert (ended.exit_code, harness.log_of(key)) == (0, "1234\nok\n")
    image = build_image(client, 'CMD ["/bin/sh", "-c", "touch /x && id -u"]')
    key, ended = harness.run("", image=image, isolation="compatible", user=None)
    assert (ended.exit_code, harness.log_of(key)) == (0, "0\n")


def test_what_the_image_has_at_the_mounts_does_not_show(harness: Harness, client: docker.APIClient) -> None:
    image = build_image(
        client, 'RUN mkdir /output /input && touch /output/stray /input/stray\nCMD ["ls", "/input", "/output"]'
    )
    key, _ = harness.run("", image=image)
    assert "stray" not in harness.log_of(key)
    assert not harness.output(key, "stray").exists()


def test_removing_leaves_the_models_volume_and_nothing_else(harness: Harness, client: docker.APIClient) -> None:
    image = build_image(client, 'VOLUME /scratch\nCMD ["true"]')
    first, _ = harness.run("the same model", image=image)
    second, _ = harness.run("the same model", image=image)
    used = {
        mount["Name"]: mount["Destination"]
        for key in (first, second)
        for mount in client.inspect_container(key.name)["Mounts"]
    }
    # Input, output, progress and the nameless volume of each, and the model both share.
    assert len(used) == 9
    for key in (first, second):
        harness.engine.remove(key)
    assert leftovers(client, [first, second]) == []
    left = {volume["Name"] for volume in client.volumes()["Volumes"] or []} & set(used)
    assert [(used[name], name.startswith("is-model-")) for name in left] == [("/model", True)]
    third, ended = harness.run("cat /model/weights.txt")
    assert (ended.exit_code, harness.log_of(third)) == (0, "weights\n")


def test_equal_names_in_another_work_directory_are_other_volumes(
    harness: Harness, client: docker.APIClient, tmp_path: Path
) -> None:
    script = "cat /model/weights.txt"
    with docker_harness(tmp_path / "other", client) as other:
        key, _ = harness.run(script)
        (model,) = [mount.folder for mount in other.spec(script).mounts if mount.kept]
        (model / "weights.txt").write_text("other weights\n")
        other_key, _ = other.run(script)
        assert (harness.log_of(key), other.log_of(other_key)) == ("weights\n", "other weights\n")


def test_a_container_that_was_created_but_not_started_is_found_and_started(
    harness: Harness, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = harness.spec("exit 4")

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(docker.APIClient, "start", fail)
        with pytest.raises(EngineUnavailable):
            harness.engine.start(spec)
    assert harness.engine.find(harness.consumer) == [(spec.key, RunState.CREATED)]
    assert harness.engine.wait(spec.key, 0.3) is None
    harness.engine.stop(spec.key, 1)
    harness.engine.start(spec)
    assert harness.end_of(spec.key).exit_code == 4


@pytest.mark.parametrize(("on_term", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137)])
def test_a_run_that_somebody_stops_has_not_ended_by_itself_whatever_its_code(
    harness: Harness, client: docker.APIClient, on_term: str, code: int
) -> None:
    key = harness.start(f'trap "{on_term}" TERM; echo up > "$OUTPUT_DIR/up"; while true; do sleep 0.05; done')
    harness.wait_for_output(key, "up")
    client.stop(key.name)
    for _ in range(2):
        assert harness.end_of(key) == ExitState(code, out_of_memory=False, interruption=Interruption.OUTSIDE)


@pytest.mark.parametrize("code", [0, 3, 137, 143, 255])
def test_a_run_that_ended_by_itself_has_its_own_code_and_of_an_engine_that_did_not_see_it_only_one_that_is_no_signals(
    harness: Harness, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    key, ended = harness.run(f"exit {code}")
    assert ended == ExitState(code, out_of_memory=False)
    # As after 256 other events: of a container that never was, the Engine has seen nothing.
    monkeypatch.setattr("job_consumer.engines.docker.ending.HISTORY_LIMIT_S", 0.3)
    container = client.inspect_container(key.name) | {"Id": "0" * 64}
    unseen = Interruption.OUTSIDE if code > 128 else None
    assert exit_state(client, container) == ExitState(code, out_of_memory=False, interruption=unseen)
    container["Config"]["Labels"][START_LABEL] = "an earlier start of the Engine"
    assert exit_state(client, container) == ExitState(code, out_of_memory=False, interruption=Interruption.ENGINE)
    # One of the release before.
    del container["Config"]["Labels"][START_LABEL]
    assert exit_state(client, container) == ExitState(code, out_of_memory=False, interruption=unseen)


def test_what_carries_our_label_but_names_no_run_is_left_alone(
    harness: Harness, client: docker.APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"inference-server.consumer": harness.consumer, "inference-server.fence": "one"}
    stray = client.create_container("busybox:1.37", labels=labels)["Id"]
    assert harness.engine.find(harness.consumer) == []
    assert stray in caplog.text


def test_a_command_that_cannot_be_executed_names_itself(harness: Harness, client: docker.APIClient) -> None:
    image = build_image(client, 'CMD ["/no/such/program"]')
    key, ended = harness.run("", image=image)
    assert ended.exit_code == 127
    assert "/no/such/program" in harness.log_of(key)


def test_an_image_without_a_command_or_with_an_unknown_user_is_refused(
    harness: Harness, client: docker.APIClient
) -> None:
    image = build_image(client, "CMD []")
    with pytest.raises(ImageNotFound, match="cannot be executed: it names none"):
        harness.engine.start(harness.spec("", image=image))
    image = build_image(client, 'USER nobody-knows-me\nCMD ["true"]')
    with pytest.raises(ImageNotFound, match="it has no user nobody-knows-me"):
        harness.engine.start(harness.spec("", image=image, isolation="compatible", user=None))


def test_starting_an_image_that_vanished_says_so(harness: Harness) -> None:
    with pytest.raises(ImageNotFound, match="not on this host any more"):
        harness.engine.start(harness.spec("", image="is-test:vanished"))


def test_an_engine_that_does_not_answer_is_unavailable(harness: Harness, tmp_path: Path) -> None:
    spec = harness.spec("true")
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


def test_folders_in_a_work_volume_are_seen_by_the_engine(harness: Harness, client: docker.APIClient) -> None:
    volume = client.create_volume("is-test-work")
    try:
        root = Path(volume["Mountpoint"])
        for folder in ("a/input", "a/output", "a/progress"):
            (root / folder).mkdir(parents=True)
        (root / "a/output").chmod(0o777)
        (root / "a/input/scan.txt").write_text("in the volume\n")
        spec = harness.spec("cp /input/scan.txt /output/copy.txt")
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


_WRITER = """VOLUME /cache
CMD ["/bin/sh", "-c", "for f in /cache/a /a /etc/hosts; do head -c 3145728 /dev/urandom > $f; done"]"""


def test_what_a_run_writes_to_its_images_volumes_and_to_etc_is_counted(
    harness: Harness, client: docker.APIClient
) -> None:
    image = build_image(client, _WRITER)
    key, ended = harness.run("", image=image, isolation="compatible", user="0:0")
    assert ended.exit_code == 0
    assert 9 * MIB <= harness.engine.written_bytes(key) < 10 * MIB
    root = Path(client.info()["DockerRootDir"])
    if os.geteuid() or not root.is_dir():
        pytest.skip("only root can hide the Engine's files")
    # As a consumer in a container sees it: not at all. The Engine counts the volume, and nobody /etc/hosts.
    program = (
        "import sys; from pathlib import Path; from job_consumer.engines import RunKey;"
        "from job_consumer.engines.docker.engine import DockerEngine;"
        "engine = DockerEngine(work_dir=Path(sys.argv[1]), work_volume=None);"
        "print(engine.written_bytes(RunKey(sys.argv[2], 1)))"
    )
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(root)]
    command = [*hidden, sys.executable, "-c", program, str(harness.work.root), key.uid]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 6 * MIB <= int(printed) < 7 * MIB
