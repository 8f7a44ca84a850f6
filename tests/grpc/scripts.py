"""Runs the clients' scripts as their readers do: in the environment of public clients, from the root of the tree."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.services import missing

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "grpc" / "clients"
"""What the documentation shows."""
CHECKS = ROOT / "tests" / "grpc" / "checks"
"""More calls of the same clients, which are no use as examples."""
PYTHON = ROOT / ".venv-grpc" / "bin" / "python"
PROTOS = (
    ROOT / "runtimes" / "redhare" / "protos" / "stream.proto",
    ROOT / "runtimes" / "redhare" / "protos" / "tasks.proto",
    ROOT / "examples" / "grpc" / "user_service" / "user_defined_protos.proto",
    ROOT / "examples" / "ocr" / "protos" / "ocr.proto",
)


def compile_protos(folder: Path) -> Path:
    """The Python code of all .proto files that the scripts and tests use, in `folder`."""
    if not PYTHON.exists():
        missing("there is no .venv-grpc; run: make grpc-clients")
    for proto in PROTOS:
        out = [f"--proto_path={proto.parent}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        subprocess.run([PYTHON, "-m", "grpc_tools.protoc", *out, proto.name], check=True)
    return folder


def run_script(name: str, stubs: Path, target: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """The lines that a script prints."""
    with start_script(name, stubs, target, environment) as process:
        try:
            said, told = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 0, f"{name}:\n{said}\n{told}"
    return said.splitlines()


def start_script(
    name: str, stubs: Path, target: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A script that runs, its output in pipes."""
    given = {"GRPC_TARGET": target, "PYTHONPATH": str(stubs), **(environment or {})}
    script = next(folder / name for folder in (CLIENTS, CHECKS) if (folder / name).exists())
    return subprocess.Popen(
        [PYTHON, script],
        env={"PATH": os.environ["PATH"], **given},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
