"""The example notebook, executed in a real kernel against a running server, and what its reader sees."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.echo_server import echo_server
from tests.e2e.systems import System
from tests.waiting import START_S

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_result.ipynb"
# In a process of its own: what its libraries warn of is not our tests' concern.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=float(sys.argv[2]), kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with echo_server(tmp_path_factory.mktemp("server")) as system:
        yield system


def execute(folder: Path, server: System) -> list[dict[str, Any]]:
    """The cells of the notebook with their outputs."""
    copy = folder / NOTEBOOK.name
    shutil.copy(NOTEBOOK, copy)
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, copy.name, str(START_S)],
        cwd=folder,
        env=os.environ | {"INFERENCE_SERVER_URL": server.url, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{server.logs()}"
    cells: list[dict[str, Any]] = json.loads(copy.read_text())["cells"]
    return cells


def shown(cell: dict[str, Any], kind: str) -> str:
    """What a cell showed of this kind, one after the other."""
    texts = [output.get("text") or output.get("data", {}).get(kind, "") for output in cell["outputs"]]
    return "\n".join("".join(text) for text in texts)


def test_the_notebook_shows_its_reader_what_it_says(server: System, tmp_path: Path) -> None:
    cells = [cell for cell in execute(tmp_path, server) if cell["cell_type"] == "code"]
    model, run, opened, as_path, batch, results, awaited = cells
    assert "process:echo.py" in shown(model, "text/html")
    # The progress, as it was last, and then the files.
    first, last = run["outputs"]
    assert "fetched" in "".join(first["data"]["text/html"])
    assert "scan/slice-1.txt" in "".join(last["data"]["text/html"])
    assert "b'one'" in shown(opened, "text/plain")
    assert (tmp_path / "result/scan/slice-2.txt").read_text() == "two"
    assert "copy.txt" in shown(as_path, "text/plain")
    assert (tmp_path / "copy.txt").read_text() == "two"
    assert "2 finished" in shown(batch, "text/html")
    assert "1 not submitted" in shown(batch, "text/html")
    assert "result/scan/slice-1.txt ['slice-1.txt']" in shown(results, "text/plain")
    assert "nowhere.txt does not exist" in shown(results, "text/plain")
    assert "'three'" in shown(awaited, "text/plain")
    assert not [output for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"]


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)
