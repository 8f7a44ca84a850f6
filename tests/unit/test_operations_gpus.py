"""`inference-server gpus` over what `nvidia-smi` really prints."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from operations.gpu_consumers import compose_override, consumer_names
from operations.gpus import Gpu, parse_list, parse_memory

ROOT = Path(__file__).parents[2]
A = "GPU-8a2f1c3d-5b6e-4f70-9182-a3b4c5d6e7f8"
B = "GPU-0c1d2e3f-4a5b-6c7d-8e9f-a0b1c2d3e4f5"
SLICE_0 = "MIG-1d8b2f0c-7a63-5e2d-b1f4-0c9e8d7a6b50"
SLICE_1 = "MIG-2e9c3a1d-8b74-5f3e-82a5-1d0f9e8b7c61"
ONE = f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {A})\n"
TWO = f"{ONE}GPU 1: NVIDIA RTX 6000 Ada Generation (UUID: {B})\n"
MIG = (
    f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})\n"
    f"  MIG 1g.5gb      Device  0: (UUID: {SLICE_0})\n"
    f"  MIG 1c.3g.20gb  Device  1: (UUID: {SLICE_1})\n"
    f"GPU 1: NVIDIA A100-SXM4-40GB (UUID: {B})\n"
)
ONE_MEMORY = f"0, {A}, NVIDIA H100 80GB HBM3, 81559\n"
TWO_MEMORY = f"{ONE_MEMORY}1, {B}, NVIDIA RTX 6000 Ada Generation, 49140\n"
MIG_MEMORY = f"0, {A}, NVIDIA A100-SXM4-40GB, 40960\n1, {B}, NVIDIA A100-SXM4-40GB, 40960\n"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)


def install_nvidia_smi(folder: Path, listed: str, queried: str = "", code: int = 0) -> None:
    """A program of that name which prints what the real one would."""
    (folder / "listed").write_text(listed)
    (folder / "queried").write_text(queried)
    script = folder / "nvidia-smi"
    script.write_text(
        f'#!/bin/sh\ncase "$1" in\n-L) /bin/cat {folder}/listed ;;\n'
        f"--query-gpu=index,uuid,name,memory.total) /bin/cat {folder}/queried ;;\n*) exit 2 ;;\nesac\nexit {code}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with nothing but `folder` to find programs in."""
    command = [sys.executable, "-m", "operations", "gpus", *arguments]
    environment = {**os.environ, "PATH": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def listed(done: subprocess.CompletedProcess[str]) -> list[tuple[Any, ...]]:
    assert done.returncode == 0, done.stderr
    return [(gpu["index"], gpu["uuid"], gpu["memory_mib"], gpu["consumer"]) for gpu in json.loads(done.stdout)]


def test_one_gpu(tmp_path: Path) -> None:
    install_nvidia_smi(tmp_path, ONE, ONE_MEMORY)
    assert listed(run(tmp_path, "--json")) == [(0, A, 81559, "gpu-8a2f1c3d")]


def test_two_gpus(tmp_path: Path) -> None:
    install_nvidia_smi(tmp_path, TWO, TWO_MEMORY)
    assert listed(run(tmp_path, "--json")) == [(0, A, 81559, "gpu-8a2f1c3d"), (1, B, 49140, "gpu-0c1d2e3f")]


def test_a_gpu_with_mig_slices_is_replaced_by_them(tmp_path: Path) -> None:
    install_nvidia_smi(tmp_path, MIG, MIG_MEMORY)
    assert listed(run(tmp_path, "--json")) == [
        (0, SLICE_0, 5 * 1024, "gpu-1d8b2f0c"),
        (0, SLICE_1, 20 * 1024, "gpu-2e9c3a1d"),
        (1, B, 40960, "gpu-0c1d2e3f"),
    ]


def test_the_table_shows_uuids_that_can_be_copied(tmp_path: Path) -> None:
    install_nvidia_smi(tmp_path, TWO, TWO_MEMORY)
    done = run(tmp_path)
    assert done.returncode == 0
    assert A in done.stdout
    assert "80 GiB" in done.stdout


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("No devices were found\n", 0, "finds no GPU"),
        ("No devices were found\n", 6, "exit code 6: No devices were found."),
        (NO_DRIVER, 9, "couldn't communicate with the NVIDIA driver"),
        ("Failed to initialize NVML: Driver/library version mismatch\n", 18, "version mismatch"),
    ],
)
def test_a_host_whose_driver_shows_no_gpu_is_told_what_to_do(tmp_path: Path, text: str, code: int, says: str) -> None:
    install_nvidia_smi(tmp_path, text, code=code)
    done = run(tmp_path, "--write", str(tmp_path / "compose.gpu.yaml"))
    assert done.returncode == 3
    assert says in done.stderr
    assert "COMPOSE_PROFILES=cpu" in done.stderr
    assert not (tmp_path / "compose.gpu.yaml").exists()


def test_a_host_without_nvidia_smi_is_told_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 3
    assert "no nvidia-smi" in done.stderr
    assert "COMPOSE_PROFILES=cpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_memory_that_the_driver_does_not_tell_is_unknown() -> None:
    assert parse_memory(f"0, {A}, NVIDIA GB10, [N/A]\n1, {B}, NVIDIA H100, 81559\n") == {B: 81559}


def test_slices_named_after_their_gpu_get_names_that_differ() -> None:
    gpus = parse_list(
        f"GPU 0: A100-SXM4-40GB (UUID: {A})\n"
        f"  MIG 1g.5gb Device 0: (UUID: MIG-{A}/7/0)\n"
        f"  MIG 1g.5gb Device 1: (UUID: MIG-{A}/8/0)\n"
    )
    rest = A.removeprefix("GPU-")
    assert consumer_names(gpus) == [f"gpu-{rest}-7-0", f"gpu-{rest}-8-0"]


def test_compose_runs_one_consumer_per_gpu_and_none_for_the_cpu_profile(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose")
    shutil.copy(ROOT / "docker-compose.yaml", tmp_path)
    install_nvidia_smi(tmp_path, MIG, MIG_MEMORY)
    done = run(tmp_path, "--write", str(tmp_path / "compose.gpu.yaml"))
    assert "COMPOSE_FILE=docker-compose.yaml:compose.gpu.yaml and COMPOSE_PROFILES=gpu" in done.stderr

    def configured(profile: str) -> dict[str, Any]:
        environment = {
            **os.environ,
            "PROXY_DOMAIN": "localhost",
            "COMPOSE_FILE": "docker-compose.yaml:compose.gpu.yaml",
            "COMPOSE_PROFILES": profile,
        }
        command = [docker, "compose", "config", "--format", "json"]
        output = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        services = json.loads(output.stdout)["services"]
        return {name: service for name, service in services.items() if name.startswith("job-consumer")}

    consumers = configured("gpu")
    assert {
        name: (service["environment"]["GPU_UUID"], service["environment"]["CONSUMER_NAME"])
        for name, service in consumers.items()
    } == {
        "job-consumer-gpu-0": (SLICE_0, "gpu-1d8b2f0c"),
        "job-consumer-gpu-1": (SLICE_1, "gpu-2e9c3a1d"),
        "job-consumer-gpu-2": (B, "gpu-0c1d2e3f"),
    }
    (cpu,) = configured("cpu").values()
    different = {"environment", "profiles"}
    for service in consumers.values():
        assert {k: v for k, v in service.items() if k not in different} == {
            k: v for k, v in cpu.items() if k not in different
        }


def test_the_file_says_how_it_was_made_and_is_switched_on() -> None:
    text = compose_override("compose.gpu.yaml", [Gpu(0, A, "NVIDIA H100 80GB HBM3", 81559)])
    assert "inference-server gpus --write compose.gpu.yaml" in text
    assert "#   COMPOSE_FILE=docker-compose.yaml:compose.gpu.yaml\n#   COMPOSE_PROFILES=gpu\n" in text
