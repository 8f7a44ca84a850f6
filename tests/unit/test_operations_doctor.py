"""`inference-server doctor`: each check over what the programs it asks really print."""

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operations.checks import configuration, engine, gpu, host, software, traefik
from operations.engine_answers import EngineAnswers, EngineSilentError, ask_engine
from operations.findings import Finding, Level
from operations.secrets import make_secrets
from operations.versions import is_fixed, parse_version

ROOT = Path(__file__).parents[2]
GIB = 1024**3
OLD = EngineAnswers(
    version={
        "Version": "20.10.24+dfsg1",
        "ApiVersion": "1.41",
        "Components": [
            {"Name": "Engine", "Version": "20.10.24+dfsg1"},
            {"Name": "runc", "Version": "1.1.5+ds1", "Details": {"GitCommit": "1.1.5+ds1-1+deb12u1"}},
        ],
    },
    info={
        "Driver": "overlay2",
        "LoggingDriver": "json-file",
        "LiveRestoreEnabled": False,
        "InitCommit": {"ID": "N/A", "Expected": "de40ad0"},
        "SecurityOptions": ["name=seccomp,profile=default", "name=cgroupns"],
        "Plugins": {"Log": ["journald", "json-file", "local"]},
        "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False},
        "SystemTime": "2026-11-21T07:47:22.516444738Z",
    },
    containers=[],
    services=[],
    volumes=[],
    networks=[],
)
NEW = replace(
    OLD,
    version={"Version": "29.5.1", "ApiVersion": "1.54", "Components": [{"Name": "runc", "Version": "1.3.4"}]},
    info={**OLD.info, "LiveRestoreEnabled": True, "InitCommit": {"ID": "de40ad0", "Expected": "de40ad0"}},
)


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.check: finding.level for finding in findings}


def test_every_finding_that_is_not_ok_says_what_to_do() -> None:
    assert all(bool(finding.advice) is (finding.level is not Level.OK) for finding in engine.check_engine(OLD))


def test_an_old_engine_is_warned_about() -> None:
    assert levels(engine.check_engine(OLD)) == {
        "Docker Engine": Level.WARNING,
        "runc": Level.WARNING,
        "live-restore": Level.WARNING,
        "storage driver": Level.OK,
        "docker-init": Level.WARNING,
        "seccomp": Level.OK,
        "log driver": Level.OK,
    }


@pytest.mark.parametrize(
    ("networks", "swarm", "expected"),
    [
        ([], {}, [Level.WARNING]),
        ([], {"LocalNodeState": "active", "ControlAvailable": False}, []),
        ([{"Name": "warm", "Driver": "bridge", "Attachable": False}], {}, [Level.OK]),
        ([{"Name": "warm", "Driver": "overlay", "Attachable": True}], {}, [Level.OK]),
        ([{"Name": "warm", "Driver": "overlay", "Attachable": False}], {}, [Level.PROBLEM]),
    ],
)
def test_the_network_of_replicas_must_be_there_and_let_containers_in(
    networks: list[dict[str, Any]], swarm: dict[str, Any], expected: list[Level]
) -> None:
    asked = replace(OLD, networks=networks, info={**OLD.info, "Swarm": swarm})
    findings = engine.check_replica_network({"REPLICA_NETWORK": "warm"}, asked)
    assert [finding.level for finding in findings] == expected
    assert engine.check_replica_network({}, asked) == []


def test_a_faulty_variable_of_the_gateway_is_named() -> None:
    (fault,) = configuration.variable_faults({"GRPC_STREAM_URL": "not an address"})
    assert fault.startswith("GRPC_STREAM_URL: ")


def test_a_new_engine_is_fine() -> None:
    assert set(levels(engine.check_engine(NEW)).values()) == {Level.OK}


@pytest.mark.parametrize(
    ("options", "level", "said"),
    [
        (["name=seccomp,profile=builtin"], Level.OK, "the server's profile"),
        (["name=seccomp,profile=/etc/docker/own.json"], Level.OK, "/etc/docker/own.json"),
        (["name=seccomp,profile=unconfined"], Level.WARNING, "unconfined for every other"),
        (["name=apparmor"], Level.WARNING, "any system call"),
        (None, Level.WARNING, "any system call"),
    ],
)
def test_who_filters_the_system_calls_of_models_is_told(options: list[str] | None, level: Level, said: str) -> None:
    finding = engine.check_seccomp(replace(OLD, info={**OLD.info, "SecurityOptions": options}))
    assert finding.level is level
    assert said in finding.found


def test_swarm_excuses_the_missing_live_restore() -> None:
    swarm = replace(OLD, info={**OLD.info, "Swarm": {"LocalNodeState": "active", "ControlAvailable": True}})
    assert engine.check_live_restore(swarm).level is Level.OK


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("20.10.24+dfsg1", (20, 10, 24)),
        ("v2.24.4-desktop.1", (2, 24, 4)),
        ("5.6.1\n", (5, 6, 1)),
        ("1.4.0-rc.3", (1, 4, 0)),
        ("dev", ()),
    ],
)
def test_versions_are_read_as_programs_print_them(printed: str, version: tuple[int, ...]) -> None:
    assert parse_version(printed) == version


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("1.1.12", False),
        ("1.2.7", False),
        ("1.2.8", True),
        ("1.3.2", False),
        ("1.3.3", True),
        ("1.4.0", True),
        ("1.5.0", True),
        ("2.0.1", True),
    ],
)
def test_a_fix_counts_on_its_own_branch_and_on_later_ones(version: str, fixed: bool) -> None:
    assert is_fixed(parse_version(version), engine.FIXED_RUNC) is fixed


@pytest.mark.parametrize(
    ("printed", "level"),
    [
        ("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n", Level.OK),
        ("NVIDIA Container Toolkit CLI version 1.18.0-rc.2\ncommit: abc\n", Level.OK),
        ("NVIDIA Container Toolkit CLI version 1.17.7\ncommit: abc\n", Level.PROBLEM),
        ("cli-version: 1.16.1\nlib-version: 1.16.1\nbuild date: 2024-07-23T14:57+00:00\n", Level.PROBLEM),
        ("", Level.WARNING),
    ],
)
def test_a_toolkit_that_models_escape_from_is_a_problem(printed: str, level: Level) -> None:
    assert gpu.judge_toolkit(printed).level is level


def test_the_gpus_that_are_wanted_are_those_of_env_and_of_the_compose_files_in_use(tmp_path: Path) -> None:
    (tmp_path / "compose.gpu.yaml").write_text("services:\n  x:\n    environment:\n      GPU_UUID: GPU-8a2f-1\n")
    (tmp_path / "unused.yaml").write_text("services:\n  x:\n    environment:\n      GPU_UUID: GPU-other\n")
    files = {"COMPOSE_FILE": "docker-compose.yaml:compose.gpu.yaml"}
    assert gpu.wanted_gpus(tmp_path, files) == {"GPU-8a2f-1"}
    assert gpu.wanted_gpus(tmp_path, {"GPU_UUID": "MIG-1d8b"}) == {"MIG-1d8b"}
    assert gpu.wanted_gpus(tmp_path, {}) == set()


def test_ports_that_are_listened_on_are_read_from_the_kernels_table() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   103        0 20551 1 0 100 0\n"
        "   1: 0100007F:C350 0100007F:01BB 01 00000000:00000000 00:00000000 00000000     0        0 20552 1 0 20 0\n"
    )
    table6 = (
        "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 x\n"
    )
    assert host.listening_ports(table) == {5432}
    assert host.listening_ports(table6) == {80}


def test_a_port_is_free_or_our_traefiks_or_somebody_elses() -> None:
    def container(name: str, project: str, service: str, port: int) -> dict[str, Any]:
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
        ports = [{"IP": "0.0.0.0", "PrivatePort": port, "PublicPort": port, "Type": "tcp"}, {"PrivatePort": 8082}]  # noqa: S104
        return {"Names": [f"/{name}"], "Labels": labels, "Ports": ports}

    ours = container("is-traefik-1", "is", "traefik", 443)
    theirs = container("shop-nginx-1", "shop", "nginx", 80)
    swarm = {"Spec": {"Name": "is_traefik"}, "Endpoint": {"Ports": [{"PublishedPort": 8443, "TargetPort": 443}]}}
    answers = replace(OLD, containers=[ours, theirs], services=[swarm])
    found = {port: host.check_port(port, "is", answers, {80, 443, 8080, 8443}) for port in (80, 443, 8080, 8443, 9000)}
    assert {port: finding.level for port, finding in found.items()} == {
        80: Level.PROBLEM,
        443: Level.OK,
        8080: Level.PROBLEM,
        8443: Level.OK,
        9000: Level.OK,
    }
    assert "shop-nginx-1" in found[80].found


@pytest.mark.parametrize(
    ("image", "level", "said"),
    [
        ("traefik:v3.6.15", Level.OK, "3.6.9 to 3.7.6"),
        ("registry.example.org:5000/mirror/traefik:v3.6.22@sha256:00", Level.OK, "3.6.9 to 3.7.6"),
        ("traefik:3.7.6", Level.OK, "3.6.9 to 3.7.6"),
        ("traefik:v3.6.8", Level.WARNING, "CVE-2026-26999"),
        ("traefik:v3.6.23", Level.WARNING, "not tried"),
        ("traefik:v3.7.7", Level.WARNING, "hang"),
        ("traefik:v4.0.0", Level.WARNING, "hang"),
        ("traefik:v3.7", Level.WARNING, "many versions"),
        ("10.0.0.7:5000/traefik@sha256:00", Level.WARNING, "does not tell"),
        ("traefik", Level.WARNING, "does not tell"),
    ],
)
def test_a_traefik_is_judged_by_its_version(image: str, level: Level, said: str) -> None:
    finding = traefik.judge_traefik(image)
    assert finding.level is level
    assert said in finding.found
    assert bool(finding.advice) is (level is not Level.OK)


def test_the_traefik_of_this_server_is_judged_and_no_other() -> None:
    def container(project: str, image: str, **labels: str) -> dict[str, Any]:
        place = {"com.docker.compose.project": project, "com.docker.compose.service": "traefik"}
        return {"Image": image, "Labels": place | labels}

    version = {"org.opencontainers.image.version": "v3.7.9"}
    swarm = {
        "Name": "inference-server_traefik",
        "TaskTemplate": {"ContainerSpec": {"Image": "traefik:v3.6.1@sha256:0"}},
    }
    running = replace(
        OLD,
        containers=[
            container("inference-server", "traefik@sha256:00", **version),
            container("others", "traefik:v2.0.0"),
        ],
        services=[{"Spec": swarm}],
    )
    named = {"TRAEFIK_IMAGE": "traefik:v3.6.15"}
    assert [finding.found.partition(": ")[0] for finding in traefik.check_traefik(named, running)] == [
        "traefik:v3.7.9",
        "traefik:v3.6.1@sha256:0",
    ]
    assert [finding.level for finding in traefik.check_traefik(named, OLD)] == [Level.OK]
    assert traefik.check_traefik({}, OLD) == traefik.check_traefik({}, None) == []


def test_the_traefik_that_compose_runs_is_right() -> None:
    (tag,) = set(re.findall(r"TRAEFIK_IMAGE:-(\S+?)\}", (ROOT / "docker-compose.yaml").read_text()))
    assert traefik.judge_traefik(tag).level is Level.OK


def test_a_port_that_a_program_really_holds_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (found, _) = host.check_ports({"HTTP_PORT": str(port)}, None)
    assert found.level is Level.PROBLEM


@pytest.mark.parametrize(
    ("free", "level"), [(20 * GIB, Level.OK), (19 * GIB, Level.WARNING), (2 * GIB, Level.WARNING), (GIB, Level.PROBLEM)]
)
def test_little_room_is_warned_about_and_none_is_a_problem(free: int, level: Level) -> None:
    assert host.judge_space("disk", Path("/data"), free).level is level


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert "GiB free" in host.check_disk("disk", tmp_path / "not" / "yet").found


def test_a_clock_that_differs_from_the_engines_is_warned_about() -> None:
    found = host.check_clock(replace(OLD, info={**OLD.info, "SystemTime": "2020-01-01T00:00:00.123456789Z"}))
    assert found.level is Level.WARNING
    assert "differs by" in found.found


def test_a_file_of_variables_is_read_as_compose_reads_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\n\nPROXY_DOMAIN=localhost # the name\nexport LOG_LEVEL = INFO\n#DATA_DIR=/data\n"
        "EMPTY=\nSINGLE='a # b'\nDOUBLE=\"c\" # d\nHASH=a#b\n"
    )
    assert configuration.read_variables(tmp_path / ".env") == {
        "PROXY_DOMAIN": "localhost",
        "LOG_LEVEL": "INFO",
        "EMPTY": "",
        "SINGLE": "a # b",
        "DOUBLE": "c",
        "HASH": "a#b",
    }


def check_env(folder: Path, text: str) -> list[Finding]:
    (folder / ".env").write_text(text)
    (folder / ".env.example").write_text((ROOT / ".env.example").read_text())
    return configuration.check_variables(folder, configuration.read_variables(folder / ".env"))


def test_the_example_is_accepted(tmp_path: Path) -> None:
    (found,) = check_env(tmp_path, (ROOT / ".env.example").read_text())
    assert found.level is Level.OK


def test_faulty_and_unknown_variables_are_named(tmp_path: Path) -> None:
    text = "LOG_LEVEL=loud\nKEEP_FINISHED_FOR=30\nMAX_UPLOAD_BYTE=5\nSERVICE_TOKEN=changeme\n"
    found = check_env(tmp_path, text)
    assert [finding.found.partition(":")[0] for finding in found] == [
        "LOG_LEVEL",
        "SERVICE_TOKEN",
        "KEEP_FINISHED_FOR",
        "nobody reads MAX_UPLOAD_BYTE",
    ]
    assert [finding.level for finding in found] == [Level.PROBLEM] * 3 + [Level.WARNING]


def test_secrets_are_compose_s_own_fine_open_to_others_or_unusable(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert configuration.check_secrets(folder)[0].found == f"none in {folder}: Compose makes its own"
    make_secrets(folder)
    assert configuration.check_secrets(folder)[0].level is Level.OK
    folder.chmod(0o755)
    assert configuration.check_secrets(folder)[0].level is Level.WARNING
    (folder / "service_token").unlink()
    (folder / "service_token").write_text("changeme")
    (found,) = configuration.check_secrets(folder)
    assert found.level is Level.PROBLEM
    assert "service_token is a well-known default" in found.found


@pytest.mark.parametrize(("version", "level"), [("3.11.7", Level.WARNING), ("3.13.5", Level.OK), ("3.14.0", Level.OK)])
def test_a_python_with_the_tar_hole_is_warned_about(version: str, level: Level) -> None:
    assert software.check_python(version).level is level


def test_our_locked_libraries_have_no_known_hole() -> None:
    assert {software.check_library(name).level for name in software.FIXED_LIBRARIES} == {Level.OK}


@pytest.mark.parametrize("address", ["/nowhere/docker.sock", "unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_an_engine_that_does_not_answer_is_said_where(address: str) -> None:
    with pytest.raises(EngineSilentError, match=address):
        ask_engine(address)


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "operations", "doctor", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_host_without_an_engine_is_a_problem_that_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"PROXY_DOMAIN=localhost\nDOCKER_SOCKET={tmp_path}/docker.sock\n")
    done = doctor("--dir", str(tmp_path), "--json")
    assert done.returncode == 1, done.stderr
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert findings["Docker Engine"]["level"] == "problem"
    assert f"{tmp_path}/docker.sock" in findings["Docker Engine"]["found"]
    assert findings[".env"]["level"] == "ok"


def test_the_whole_table_is_printed_on_this_machine() -> None:
    done = doctor()
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    for check in ("Docker Engine", "Compose", "GPUs", "port 443", "clock", ".env", "secrets", "certificate", "Python"):
        assert check in done.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ["no key is asked for"]),
        ({"ALLOW_PUBLIC_POST_MODEL": "1"}, ["no key is asked for", "everybody may register models"]),
        ({"REQUIRE_API_KEY": "yes", "ALLOW_PUBLIC_POST_MODEL": "1"}, ["every key may register models"]),
        ({"REQUIRE_API_KEY": "1", "ALLOW_PUBLIC_POST_MODEL": "0"}, ["every call needs a key"]),
    ],
)
def test_who_gets_in_is_told(variables: dict[str, str], said: list[str]) -> None:
    findings = configuration.check_access(variables)
    assert [text in finding.found for text, finding in zip(said, findings, strict=True)] == [True] * len(said)
    assert {finding.level for finding in findings} == {Level.OK if "needs a key" in said[0] else Level.WARNING}
