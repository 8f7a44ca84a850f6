"""What is checked in is what `make protos` makes of the wire contracts."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "grpc_gateway" / "generated"


def test_the_generated_code_is_that_of_the_wire_contracts(tmp_path: Path) -> None:
    subprocess.run(["make", "--silent", "protos", f"GENERATED={tmp_path}"], cwd=ROOT, check=True)
    stored = {path.name: path.read_text() for path in GENERATED.glob("*_pb2.py*")}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == stored, "run: make protos"
