"""`infer check` with real containers: the server's verdict, and advice about each thing the sandbox breaks."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import docker
import pytest

from inference_client import InferenceClient
from inference_client.models import ModelRegistration as ClientRegistration
from job_consumer.__main__ import consumer_options
from job_consumer.engines import LABEL
from job_consumer.engines.docker.witness import WitnessEngine
from job_consumer.settings import JobConsumerSettings
from standalone.server import consumer_in_thread
from tests.commands import run_command
from tests.e2e.images import UNTIL_TOLD
from tests.engine_client import engine_client
from tests.integration.engine_harness import build_image
from tests.integration.infer_harness import User
from tests.integration.public_door import serve_door
from tests.running_api import TOKEN, run_private_api
from tests.services import require_docker
from tests.terminal import Answer
from tests.waiting import PATIENCE_S, repeat_until_told, wait_until
from tests.zips import make_zip

MIB = 1024**2
ROOT = "RUN mkdir -p /root && chmod 700 /root"
SECRET = "RUN mkdir -m 700 /secret && echo 42 > /secret/weights && chmod 600 /secret/weights"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.APIClient]:
    require_docker()
    client = engine_client()
    yield client
    client.close()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "scan.txt").write_text("42\n")
    return folder


def script_image(engine: docker.APIClient, script: str, before: str = "") -> str:
    return build_image(engine, f"{before}\nCMD {json.dumps(['/bin/sh', '-c', script])}")


def run(image: str, scan: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "INFERENCE_SERVER_IMAGE"}
    command = ("inference_client", "check", image, "--input", str(scan), *options)
    return run_command(*command, env=environment | variables)


def check(image: str, scan: Path, *options: str, expect: int = 1, **variables: str) -> dict[str, Any]:
    done = run(image, scan, "--json", *options, **variables)
    assert done.returncode == expect, done.stdout + done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


@dataclass(frozen=True)
class Broken:
    """A script that strict breaks, and what is said of it."""

    name: str
    script: str
    problem: str
    repair: str
    before: str = ""
    reason: str = "exit_code"
    options: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


BROKEN = [
    Broken("root-file-system", "echo 1 > /result.txt", "writes to /result.txt, which is read-only", r"\$OUTPUT_DIR"),
    Broken("working-directory", "echo 1 > result.txt", "writes to result.txt", r"\$OUTPUT_DIR", before="WORKDIR /app"),
    Broken("home", "mkdir /root/.cache", "may not read or write /root/.cache", "HOME is /tmp", ROOT),
    Broken("input", "touch /input/scan.nii", "writes to /input/scan.nii", "copy to /tmp"),
    Broken("closed-files", "cat /secret/weights", "65532:65532 may not read or write /secret/weights", "chmod", SECRET),
    Broken("root", "touch /output/x && chown 0:0 /output/x", "needs root or a capability.*chown", "without chown"),
    Broken("nameless", "whoami", "no name in the image: whoami: unknown uid 65532", "/etc/passwd"),
    Broken("network", "wget http://example.org/weights", "uses the network.*example.org", "/model"),
    Broken(
        "shared-memory",
        "dd if=/dev/zero of=/dev/shm/batch bs=1M count=9",
        r"/dev/shm\) of 8.0 MiB does not suffice",
        "--shared-memory",
        variables=(("SHARED_MEMORY_BYTES", str(8 * MIB)),),
    ),
    Broken(
        "temporary-files",
        "dd if=/dev/zero of=/tmp/scratch bs=1M count=9",
        "/tmp, which is memory, takes 8.0 MiB and is full",
        "remove files.*--temporary",
        variables=(("TEMPORARY_BYTES", str(8 * MIB)),),
    ),
    Broken(
        "temporary-files-of-the-model",
        "dd if=/dev/zero of=/tmp/scratch bs=1M count=9",
        "/tmp, which is memory, takes 4.0 MiB and is full",
        "--temporary",
        options=("--temporary", "4MiB"),
    ),
    Broken(
        "processes",
        "for i in $(seq 40); do sleep 3 & done; wait",
        "more than 16 processes and threads",
        "OMP_NUM_THREADS.*--pids-limit",
        variables=(("PIDS_LIMIT", "16"),),
    ),
    Broken(
        "processes-of-the-model",
        "for i in $(seq 40); do sleep 3 & done; wait",
        "more than 24 processes and threads",
        "--pids-limit",
        options=("--pids-limit", "24"),
    ),
    Broken(
        "memory",
        "head -c 64m /dev/zero | tail -c 48m > /dev/null",
        "used up its memory",
        "--memory",
        reason="out_of_memory",
        options=("--memory", "16MiB"),
    ),
    Broken("time", UNTIL_TOLD, "time limit", "--time-limit", reason="time_limit", options=("--time-limit", "1")),
    Broken("link", "ln -s /model /output/model", "a symbolic link", "cp -L", reason="output_rejected"),
    Broken("fifo", "mkfifo /output/pipe", "a FIFO", "in /tmp", reason="output_rejected"),
    Broken(
        "silence",
        "echo 1 2> /dev/null > results/mask.nii; exit 0",
        r"writable \(compatible\), it writes to /app/results/mask.nii$",
        r"\$OUTPUT_DIR",
        before="WORKDIR /app/results\nWORKDIR /app",
        reason="no_output",
    ),
    Broken(
        "own-user",
        "[ $(id -u) = 0 ] && echo 1 > /output/done",
        r"finishes as the image's own user .* \(compatible\), and not under strict",
        "--isolation compatible",
    ),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_what_the_sandbox_breaks_is_named_with_its_repair(engine: docker.APIClient, scan: Path, broken: Broken) -> None:
    image = script_image(engine, broken.script, broken.before)
    verdict = repeat_until_told(
        lambda: check(image, scan, *broken.options, **dict(broken.variables)),
        lambda verdict: broken.reason != "out_of_memory" or verdict["reason"] == broken.reason,
    )
    assert (verdict["http_status"], verdict["status"], verdict["reason"]) == (552, "failed", broken.reason)
    assert any(
        re.search(broken.problem, advice["problem"]) and re.search(broken.repair, advice["repair"])
        for advice in verdict["advice"]
    ), verdict


FILL_SHARED_MEMORY = """
import mmap, os
file = os.open("/dev/shm/batch", os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 64 << 20)
memory = mmap.mmap(file, 64 << 20)
for page in range(0, 64 << 20, 4096):
    memory[page] = 1
"""
ENDS = {
    "a full /dev/shm": (
        "FROM python:3.13-slim",
        ["python", "-c", FILL_SHARED_MEMORY],
        "exit_code",
        "exit code 135: it was killed with SIGBUS; this usually means that its /dev/shm of 8 MiB is full; let it "
        "use fewer workers or smaller batches, or register the model with a larger shared_memory_bytes",
    ),
    "a wrong access": ("FROM busybox:1.37", ["sh", "-c", "kill -SEGV $$"], "exit_code", "SIGSEGV; it crashed by"),
    "no command": (
        "FROM busybox:1.37",
        ["/opt/run.sh", "--fast"],
        "image_not_found",
        "the image's command cannot be executed: /opt/run.sh: No such file or directory",
    ),
    "a closed command": (
        "FROM busybox:1.37\nRUN mkdir /opt && touch /opt/run.sh",
        ["/opt/run.sh"],
        "image_not_found",
        "the image's command cannot be executed: /opt/run.sh: Permission denied",
    ),
    "no such command inside": ("FROM busybox:1.37", ["sh", "-c", "segment"], "exit_code", "it calls does not exist"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_code_comes_with_what_it_means(engine: docker.APIClient, scan: Path, end: str) -> None:
    base, command, reason, said = ENDS[end]
    image = build_image(engine, f"CMD {json.dumps(command)}", base=base)
    verdict = check(image, scan, SHARED_MEMORY_BYTES=str(8 * MIB))
    assert verdict["reason"] == reason, verdict
    assert said in verdict["detail"], verdict


USE_ALL = """
set -e
dd if=/dev/zero of=/dev/shm/batch bs=1M count=24
dd if=/dev/zero of=/tmp/scratch bs=1M count=24
for i in $(seq 40); do sleep 30 & done
cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us > /output/cpus.txt 2> /dev/null || true
"""


def test_what_the_host_has_too_little_of_by_default_a_model_gets_by_asking(
    engine: docker.APIClient, scan: Path, tmp_path: Path
) -> None:
    image = script_image(engine, USE_ALL)
    host = {"SHARED_MEMORY_BYTES": str(8 * MIB), "TEMPORARY_BYTES": str(8 * MIB), "PIDS_LIMIT": "16"}
    refused = check(image, scan, **host)
    assert "register the model with a larger shared_memory_bytes" in refused["detail"], refused
    options = ("--shared-memory", "32MiB", "--temporary", "32MiB", "--pids-limit", "64", "--cpus", "0.5")
    check(image, scan, *options, "-o", str(tmp_path / "out.zip"), expect=0, **host)
    with ZipFile(tmp_path / "out.zip") as output:
        assert output.read("cpus.txt").split()[0] == b"50000"


def test_a_blemish_costs_no_output_and_is_told(engine: docker.APIClient, scan: Path) -> None:
    script = "cd /output; echo 1 > lh.pial.T1; ln -s lh.pial.T1 lh.pial; ln lh.pial.T1 again; ln -s /etc/passwd out"
    image = script_image(engine, f"{script}; mkfifo pipe; echo 2 > $(printf 'Sch\\344del')")
    verdict = check(image, scan, expect=0)
    assert {file["path"]: file["size_bytes"] for file in verdict["output"]} == {
        "lh.pial.T1": 2,
        "lh.pial": 2,
        "again": 2,
        "Sch%E4del": 2,
    }
    assert verdict["warnings"] == [
        "'out' was left out: a symbolic link that leads out of /output",
        "'pipe' was left out: a FIFO",
        r"'Sch\udce4del' was sent as 'Sch%E4del': its name is not valid UTF-8",
    ]
    assert "warning: 'pipe' was left out: a FIFO\n" in run(image, scan).stdout


def test_a_process_that_was_killed_for_memory_is_told_where_the_run_went_on(
    engine: docker.APIClient, scan: Path
) -> None:
    image = script_image(engine, "tail /dev/zero; echo 1 > /output/done")
    verdict = repeat_until_told(
        lambda: check(image, scan, "--memory", "16MiB", expect=0), lambda verdict: verdict["warnings"]
    )
    (warning,) = verdict["warnings"]
    assert "more than its 16777216 bytes of memory, so one of its processes was killed" in warning


def test_who_it_is_can_be_asked_for(engine: docker.APIClient, scan: Path) -> None:
    program = "import getpass; open('/output/user', 'w').write(getpass.getuser())"
    image = build_image(engine, f"CMD {json.dumps(['python', '-c', program])}", base="FROM python:3.13-slim")
    check(image, scan, expect=0)


def test_a_run_that_finishes_has_its_output_listed_and_kept(
    engine: docker.APIClient, scan: Path, tmp_path: Path
) -> None:
    image = script_image(engine, "echo works on $INPUT_DIR; cp -r /input/. /output/; cp /model/w /output/")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w").write_text("1")
    done = run(image, scan, "--model", str(tmp_path / "weights"), "-o", str(tmp_path / "out.zip"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "works on /input\n"
    assert done.stdout.splitlines()[0] == "finished: a poll would answer 200"
    assert "  scan.txt  3 B" in done.stdout.splitlines()
    with ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == ["scan.txt", "w"]
    assert left_by_trials(engine, image) == []


def test_a_fault_of_the_program_itself_is_not_blamed_on_the_sandbox(engine: docker.APIClient, scan: Path) -> None:
    image = script_image(engine, "echo the scan is empty >&2; exit 7")
    verdict = check(image, scan)
    assert (verdict["exit_code"], verdict["advice"], verdict["log_tail"]) == (7, [], "the scan is empty\n")
    assert "program itself" in run(image, scan).stdout
    assert check(image, scan, "--no-compare")["compatible"] is None


def test_an_image_that_strict_breaks_is_checked_as_compatible(engine: docker.APIClient, scan: Path) -> None:
    image = script_image(engine, "echo 1 > /result.txt; cp /result.txt /output/")
    assert check(image, scan)["compatible"]["status"] == "finished"
    verdict = check(image, scan, "--isolation", "compatible", expect=0)
    assert verdict["output"] == [{"path": "result.txt", "size_bytes": 2}]


def test_what_the_server_would_not_take_is_not_run(engine: docker.APIClient, tmp_path: Path) -> None:
    (tmp_path / "input.zip").write_bytes(make_zip({"../evil": b""}))
    done = run(script_image(engine, "true"), tmp_path / "input.zip")
    assert done.returncode == 2
    assert "the server would refuse the input" in done.stderr
    command = ("operations", "check", "busybox:1.37", "--input", __file__, "-o", str(tmp_path / "none" / "out.zip"))
    done = run_command(*command, env=os.environ)
    assert (done.returncode, "there is no folder" in done.stderr) == (2, True), done.stderr
    refused = check(script_image(engine, "true"), tmp_path / "input.zip", expect=2)
    assert refused["error"] == "InvalidArchive"


def test_the_log_is_live_and_ctrl_c_leaves_nothing(engine: docker.APIClient, scan: Path, tmp_path: Path) -> None:
    image = script_image(engine, f"echo begins; {UNTIL_TOLD}")
    user = User(tmp_path / "home")
    ctrl_c = Answer("begins", "\x03")
    shown = user.types("check", image, "--input", str(scan), answers=[ctrl_c])
    assert shown.code == 130, shown.text
    assert "interrupted; the run was removed" in shown.text
    assert left_by_trials(engine, image) == []


def test_an_image_that_is_not_there_fails_as_on_the_server(engine: docker.APIClient, scan: Path) -> None:
    verdict = check("localhost:1/none:1", scan)
    assert verdict["reason"] == "image_not_found"
    # What the Engine met at that address is not for the user of a server.
    assert verdict["detail"] == "the image localhost:1/none:1 is not on this host and no registry could be reached"


def test_without_an_engine_that_is_said(scan: Path, tmp_path: Path) -> None:
    failed = check("busybox:1.37", scan, expect=5, DOCKER_HOST=f"unix://{tmp_path}/none")
    assert "no Docker Engine answers" in failed["detail"]


@contextmanager
def started(arguments: list[str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()


def container_of(engine: docker.APIClient, image: str, consumer: str) -> dict[str, Any]:
    """The container of the consumer whose name begins so, once it runs."""
    found: list[dict[str, Any]] = []

    def find() -> bool:
        for container in engine.containers(filters={"ancestor": image}):
            if container["Labels"][f"{LABEL}.consumer"].startswith(consumer):
                found.append(engine.inspect_container(container["Id"]))
        return bool(found)

    wait_until(find, f"a container of {consumer}")
    return found[0]


def left_by_trials(engine: docker.APIClient, image: str) -> list[str]:
    """Of this image alone: other processes check others meanwhile."""
    containers = engine.containers(all=True, filters={"label": f"{LABEL}.consumer", "ancestor": image})
    return [
        name
        for container in containers
        for name in container["Names"]
        if container["Labels"][f"{LABEL}.consumer"].startswith("trial-")
    ]


def neutral(container: dict[str, Any]) -> dict[str, Any]:
    """What was asked of the Engine, without names that differ from run to run."""
    asked = json.dumps({name: container[name] for name in ("Config", "HostConfig")})
    labels = container["Config"]["Labels"]
    # A trial has no server, whose id is in names and labels.
    server = labels.get(f"{LABEL}.server")
    asked = asked.replace(f', "{LABEL}.server": "{server}"', "").replace(f"is-{server}-", "is-")
    work = re.sub(
        r"/attempts/.*", "", container["HostConfig"]["Mounts"][0]["VolumeOptions"]["DriverConfig"]["Options"]["device"]
    )
    for name, stands_for in (
        (labels[f"{LABEL}.task"], "UID"),
        (labels[f"{LABEL}.consumer"], "CONSUMER"),
        (work, "WORK"),
        (container["Config"]["Hostname"], "HOSTNAME"),
    ):
        asked = asked.replace(name, stands_for)
    # Of the folder, in a volume's name.
    neutral: dict[str, Any] = json.loads(re.sub(r"-[0-9a-f]{8}\"", '-HASH"', asked))
    return neutral


def test_a_checked_container_is_the_consumers_container(
    engine: docker.APIClient, sqlite_url: str, scan: Path, tmp_path: Path
) -> None:
    image = script_image(engine, f"{UNTIL_TOLD} # {secrets.token_hex(4)}")
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "w").write_text("1")
    settings = JobConsumerSettings.load(
        {
            "SERVICE_TOKEN": TOKEN,
            "CONSUMER_NAME": f"ada-{secrets.token_hex(4)}",
            "WORK_DIR": str(tmp_path / "work"),
            "RABBIT_PASSWORD": secrets.token_hex(16),
        }
    )
    consumers_engine = WitnessEngine(work_dir=settings.work_dir, work_volume=None)
    with (
        run_private_api(sqlite_url, tmp_path / "data") as api,
        serve_door(api.url) as url,
        InferenceClient(url) as client,
    ):
        registration = ClientRegistration(human_readable_id="seg", container_tag=image, memory_limit_bytes=64 * MIB)
        client.add_model(registration, weights)
        uid = client.submit("seg", scan)
        with consumer_in_thread(replace(consumer_options(settings), api_url=api.url), api.broker, consumers_engine):
            ours = container_of(engine, image, settings.consumer_name)
            options = ["--input", str(scan), "--model", str(weights), "--memory", "64MiB"]
            with started([sys.executable, "-m", "inference_client", "check", image, *options]):
                theirs = container_of(engine, image, "trial-")
            client.cancel(uid)
            client.wait(uid)
    consumers_engine.forget_models()
    consumers_engine.close()
    assert neutral(theirs) == neutral(ours)
    assert left_by_trials(engine, image) == [], "a check that was interrupted left something"
