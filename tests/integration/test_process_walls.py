"""What a program of the process engine tries is refused by the walls of this machine, and goes on without them."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from job_consumer.engines.process.engine import ProcessEngine
from job_consumer.engines.process.landlock import SCOPE_SINCE
from job_consumer.engines.process.walls import Walls
from tests.integration.engine_harness import MIB, machine_walls, process_harness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

HOSTILE = Path(__file__).with_name("hostile.py")
OF_FILES = {
    "read database",
    "read other task",
    "read home",
    "write beside the run",
    "write to the input",
    "write to the model",
}
OF_PRIVILEGE = {"read environment of the server", "read through a process of the server", "trace the server"}
OF_NETWORK = {
    "connect to a port",
    "connect to the outside",
    "send a datagram",
    "connect to a service's socket",
    "connect to an abstract socket",
}
OF_THE_KERNEL = {"open AF_VSOCK", "trace a child", "take namespaces", "use the kernel's keys", "use io_uring"}
EVERYTHING = OF_FILES | OF_PRIVILEGE | OF_NETWORK | OF_THE_KERNEL | {"signal the server"}
needs_namespaces = pytest.mark.skipif(not machine_walls().namespace, reason="this machine allows no user namespaces")
needs_seccomp = pytest.mark.skipif(not machine_walls().seccomp, reason="this machine has no seccomp")


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """A server's files, ports and process, none of which a run may reach."""
    data = tmp_path_factory.mktemp("data")
    with ExitStack() as stack:
        tcp, udp, local, abstract = (
            stack.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_STREAM),
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
            )
        )
        tcp.bind(("0.0.0.0", 0))  # noqa: S104 - the machine's own address stands for the outside
        udp.bind(("127.0.0.1", 0))
        local.bind(str(data / "service.sock"))
        abstract.bind(f"\0is-test-{os.getpid()}")
        for listener in (tcp, local, abstract):
            listener.listen(64)
        echo = Thread(target=_answer, args=(udp,), daemon=True)
        echo.start()
        home = stack.enter_context(tempfile.NamedTemporaryFile(dir=Path.home(), prefix=".is-test-"))
        (data / "inference.db").write_text("rows")
        (data / "work/attempts/other/input").mkdir(parents=True)
        (data / "work/attempts/other/input/scan.txt").write_text("a patient")
        server = subprocess.Popen(["sleep", "600"], env={"SERVICE_TOKEN": "secret"})
        stack.callback(lambda: (server.kill(), server.wait()))
        yield {
            "database": str(data / "inference.db"),
            "other_task": str(data / "work/attempts/other/input/scan.txt"),
            "home": home.name,
            "outside": str(data / "written"),
            "tcp_port": tcp.getsockname()[1],
            "udp_port": udp.getsockname()[1],
            "address": _own_address(),
            "unix_socket": str(data / "service.sock"),
            "abstract_socket": f"is-test-{os.getpid()}",
            "pid": server.pid,
        }


def _answer(udp: socket.socket) -> None:
    try:
        while True:
            _, sender = udp.recvfrom(100)
            udp.sendto(b"hello", sender)
    except OSError:
        return


def _own_address() -> str:
    """By which others reach this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def attempts(tmp_path: Path, targets: dict[str, object], walls: Walls) -> dict[str, str]:
    """What the hostile program says of each of its attempts."""
    with process_harness(tmp_path / "work", walls) as harness:
        spec = harness.spec("hostile" + json.dumps(targets))
        model = next(mount.folder for mount in spec.mounts if mount.kept)
        (model / "hostile.py").write_text(HOSTILE.read_text())
        (model / "targets.json").write_text(json.dumps(targets))
        harness.engine.start(replace(spec, image="process:hostile.py"))
        ended, log = harness.end_of(spec.key), harness.log_of(spec.key)
        assert ended.exit_code == 0, log
        return dict(line.split(": ") for line in log.splitlines())


def done(attempted: dict[str, str]) -> set[str]:
    """What it got done."""
    return {name for name, end in attempted.items() if end == "done"}


def test_behind_all_walls_nothing_is_done(tmp_path: Path, targets: dict[str, object]) -> None:
    attempted = attempts(tmp_path, targets, machine_walls())
    assert len(attempted) == len(EVERYTHING)
    assert done(attempted) == set(), machine_walls()


def test_without_walls_everything_is_done(tmp_path: Path, targets: dict[str, object]) -> None:
    # A server that is root has privileges, by which the kernel keeps its processes from those without.
    kept = OF_PRIVILEGE if os.geteuid() == 0 else set()
    assert done(attempts(tmp_path, targets, Walls())) == EVERYTHING - kept


@needs_namespaces
def test_namespaces_alone_keep_files_the_network_and_other_processes_away(
    tmp_path: Path, targets: dict[str, object]
) -> None:
    assert done(attempts(tmp_path, targets, Walls(namespace=True))) == OF_THE_KERNEL


@pytest.mark.skipif(machine_walls().landlock < SCOPE_SINCE, reason="this kernel's Landlock cannot refuse signals")
def test_landlock_alone_keeps_files_ports_and_other_processes_away(tmp_path: Path, targets: dict[str, object]) -> None:
    walls = Walls(landlock=machine_walls().landlock)
    left = {"send a datagram", "connect to a service's socket"}
    assert done(attempts(tmp_path, targets, walls)) == OF_THE_KERNEL | left


@needs_seccomp
def test_seccomp_alone_keeps_the_network_and_parts_of_the_kernel_away(
    tmp_path: Path, targets: dict[str, object]
) -> None:
    left = done(attempts(tmp_path, targets, Walls(seccomp=True)))
    assert left - OF_PRIVILEGE == OF_FILES | {"signal the server"}


@pytest.mark.skipif(not (machine_walls().landlock and machine_walls().seccomp), reason="this kernel lacks one of them")
def test_where_namespaces_are_refused_landlock_and_seccomp_do_together(
    tmp_path: Path, targets: dict[str, object]
) -> None:
    walls = replace(machine_walls(), namespace=False)
    left = set() if walls.landlock >= SCOPE_SINCE else {"signal the server"}
    assert done(attempts(tmp_path, targets, walls)) == left


GOOD = """
import multiprocessing, os, pty, socket, subprocess, sys, tempfile, threading
from pathlib import Path

def square(number):
    return number * number

if __name__ == "__main__":
    output = Path(os.environ["OUTPUT_DIR"])
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, [1, 2, 3]))
    with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").write_text("moved")
        (output / "sub").mkdir()
        (output / "b").write_text((Path(folder) / "a").read_text())
        (output / "b").rename(output / "sub" / "c")
    (Path.home() / ".cache").mkdir()
    script = Path(os.environ["TMPDIR"]) / "script"
    script.write_text("#!/bin/sh\\necho script ran\\n")
    script.chmod(0o755)
    print(subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip())
    thread = threading.Thread(target=lambda: print("thread ran"))
    thread.start()
    thread.join()
    first, second = socket.socketpair()
    first.send(b"pair"); print(second.recv(4).decode())
    print(len(os.urandom(8)), len(Path("/dev/urandom").open("rb").read(8)), Path("/dev/null").write_text("x"))
    print((Path(os.environ["INPUT_DIR"]) / "scan.txt").read_text().strip(), os.cpu_count() > 0)
"""
OWN_NETWORK = """
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with multiprocessing.Manager() as manager:
        print(manager.dict(a=1)["a"])
    os.close(pty.openpty()[0])
    print("own network")
"""
SAID = "[1, 4, 9]\nscript ran\nthread ran\npair\n8 8 1\n42 True\n"


def run_python(tmp_path: Path, walls: Walls, source: str) -> str:
    """What a program of the model says that must end well."""
    with process_harness(tmp_path / "work", walls) as harness:
        spec = harness.spec(source, memory_limit_bytes=512 * MIB)
        (next(mount.folder for mount in spec.mounts if mount.kept) / "good.py").write_text(source)
        harness.engine.start(replace(spec, image="process:good.py"))
        ended, log = harness.end_of(spec.key), harness.log_of(spec.key)
        assert ended.exit_code == 0, log
        return log


@needs_namespaces
def test_a_good_program_goes_on_behind_all_walls(tmp_path: Path) -> None:
    assert run_python(tmp_path, machine_walls(), GOOD + OWN_NETWORK) == f"{SAID}1\nown network\n"


def test_a_good_program_without_sockets_goes_on_where_namespaces_are_refused(tmp_path: Path) -> None:
    assert run_python(tmp_path, replace(machine_walls(), namespace=False), GOOD) == SAID


@pytest.mark.parametrize("namespace", [pytest.param(True, marks=needs_namespaces), False])
def test_a_folder_that_the_server_was_told_of_is_readable_but_nothing_hidden_in_it(
    tmp_path: Path, namespace: bool
) -> None:
    tools = tmp_path / "tools"
    (tools / "data").mkdir(parents=True)
    (tools / "tool").write_text("a tool")
    (tools / "data" / "inference.db").write_text("rows")
    (tmp_path / "link").symlink_to(tools)
    work = tools / "data" / "work"
    engine = ProcessEngine(
        work_dir=work,
        readable=[tmp_path / "link"],
        hidden=[tools / "data"],
        walls=replace(machine_walls(), namespace=namespace),
    )
    with process_harness(work, engine=engine) as harness:
        key, ended = harness.run(f"cat {tmp_path}/link/tool; cat {tools}/data/inference.db; echo > {tools}/tool")
        log = harness.log_of(key)
    assert ended.exit_code != 0
    assert "a tool" in log
    assert "rows" not in log
    assert (tools / "tool").read_text() == "a tool"


@needs_namespaces
def test_what_only_some_may_read_of_etc_is_not_there(tmp_path: Path) -> None:
    with process_harness(tmp_path / "work") as harness:
        key, _ = harness.run("cat /etc/passwd > /dev/null && echo passwd; cat /etc/shadow")
        assert "passwd\n" in harness.log_of(key)
        assert "No such file" in harness.log_of(key)


@pytest.fixture
def gpu_device() -> Iterator[Path]:
    """A file where the driver has its devices, which most machines that run tests lack."""
    path = Path(f"/dev/nvidia-is-test-{os.getpid()}")
    try:
        path.write_text("a GPU\n")
    except PermissionError:
        pytest.skip("only root can make a device")
    try:
        yield path
    finally:
        path.unlink()


NO_GPU = {"fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"}


@needs_namespaces
def test_a_run_sees_no_process_but_its_own(tmp_path: Path) -> None:
    with process_harness(tmp_path / "work") as harness:
        key, _ = harness.run("cat /proc/[0-9]*/comm")
        init, program = harness.log_of(key).split()
        assert (init.startswith("python"), program) == (True, "run.sh")


@needs_namespaces
def test_a_run_has_a_containers_devices_and_no_others(tmp_path: Path) -> None:
    with process_harness(tmp_path / "work") as harness:
        key, _ = harness.run("ls /dev")
        assert set(harness.log_of(key).split()) == NO_GPU


@pytest.mark.parametrize("namespace", [pytest.param(True, marks=needs_namespaces), False])
def test_a_run_opens_a_gpu_only_if_it_was_given_one(tmp_path: Path, gpu_device: Path, namespace: bool) -> None:
    with process_harness(tmp_path / "work", replace(machine_walls(), namespace=namespace)) as harness:
        with_gpu, ended = harness.run(f"exec cat {gpu_device}", gpu_uuid="GPU-1")
        assert (ended.exit_code, harness.log_of(with_gpu)) == (0, "a GPU\n")
        without_gpu, ended = harness.run(f"exec cat {gpu_device}")
        assert ended.exit_code == 1
        assert "a GPU" not in harness.log_of(without_gpu)


@needs_namespaces
def test_dev_shm_has_the_size_that_a_run_was_given(tmp_path: Path) -> None:
    with process_harness(tmp_path / "work") as harness:
        key, _ = harness.run("head -c 20000000 /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x")
        assert harness.log_of(key).split()[-1] == str(16 * MIB)
