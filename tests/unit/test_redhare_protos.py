"""The .proto files that stand in several places say the same in each."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtimes" / "redhare" / "protos"


@pytest.mark.parametrize(
    ("name", "other"), [("stream.proto", "grpc_gateway/protos"), ("tasks.proto", "examples/ocr/protos")]
)
def test_both_are_the_same_on_the_wire(name: str, other: str, tmp_path: Path) -> None:
    assert describe(RUNTIME / name, tmp_path) == describe(ROOT / other / name, tmp_path)


def describe(proto: Path, folder: Path) -> bytes:
    """Messages and services as the compiler reads them, without comments."""
    out = folder / "described"
    options = [f"--proto_path={proto.parent}", f"--descriptor_set_out={out}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, proto.name], check=True)
    return out.read_bytes()
