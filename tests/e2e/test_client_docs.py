"""The programs in the client's documentation run as they stand there, but for the server's address."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.echo_server import echo_server
from tests.e2e.systems import System
from tests.zips import make_zip

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    (page, program)
    for page in ("docs/client.md", "inference_client/README.md")
    for program in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]
SHOWN = ["in.txt 8\n", "", "a b\n<Output of task ", ""]
"""What each begins to print."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with echo_server(tmp_path_factory.mktemp("server"), ("echo", "segment")) as system:
        yield system


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_a_program_of_the_docs_runs(server: System, tmp_path: Path, number: int) -> None:
    assert len(PROGRAMS) == len(SHOWN)
    page, program = PROGRAMS[number]
    (tmp_path / "input.zip").write_bytes(make_zip({"in.txt": b"an input"}))
    (tmp_path / "ct.nii.gz").write_bytes(b"ct")
    (tmp_path / "examples").mkdir()
    for name in ("one.py", "two.py"):
        (tmp_path / "examples" / name).write_text(name)
    adapted = re.sub(r"https?://(127\.0\.0\.1:8000|inference\.example\.org)", server.url, program)
    assert adapted != program, page
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", adapted],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"
    assert done.stdout.startswith(SHOWN[number])
    results = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("result*/**/*") if path.is_file()}
    expected = [{"result/in.txt"}, {"results/one.py/one.py", "results/two.py/two.py"}, set(), {"result/ct.nii.gz"}]
    assert results == expected[number]
