"""The redhare runtime as a process of its own, with a kernel that the test writes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from contract.tokens import Claims, sign_token

RUNTIME = Path(__file__).parents[2] / "runtimes" / "redhare"
KEY = bytes(range(32))
TOKEN = sign_token(KEY, Claims("model", "owner", None))
HEAD = "import redhareapiversion\nfrom redhareapi import Kernel\nimport json, os, sys, time\n"


@dataclass(frozen=True)
class Runtime:
    """A runtime that runs."""

    process: subprocess.Popen[str]
    channel: grpc.Channel
    tasks_dir: Path

    def logs(self) -> str:
        """End it and read all it printed."""
        self.process.terminate()
        return self.process.communicate(timeout=60)[0]


def compile_stubs(folder: Path) -> Path:
    """The code for the runtime's .proto files, as its image compiles it."""
    protos = RUNTIME / "protos"
    out = [f"--proto_path={protos}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *out, "stream.proto", "tasks.proto"], check=True, timeout=60
    )
    return folder


@contextmanager
def run_runtime(folder: Path, stubs: Path, kernel: str, **environment: str) -> Iterator[Runtime]:
    """A runtime with this kernel; `folder` is its model's. It may still be starting, or have ended already."""
    model, tasks_dir = folder / "model", folder / "tasks"
    model.mkdir(exist_ok=True)
    tasks_dir.mkdir(exist_ok=True)
    (model / "kernel.py").write_text(HEAD + kernel)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{RUNTIME}:{stubs}",
        "PYTHONUNBUFFERED": "1",
        "PORT": str(port),
        "TASKS_DIR": str(tasks_dir),
        "REDHARE_MODEL_PATH": str(model),
        "REDHARE_MODEL_NAME": "model",
        "REPLICA_UID": "r1",
        "DEPLOYMENT": "model",
        "STREAM_TOKEN_KEY": KEY.hex(),
        **environment,
    }
    command = [sys.executable, "-m", "redhare_runtime"]
    process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    options = [("grpc.max_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 100)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield Runtime(process, channel, tasks_dir)
    finally:
        process.kill()
        process.communicate(timeout=60)
