"""The tutorials, step by step: commands in a shell, cells in a notebook, and the messages that the pages show."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.doc_pages import Section, section, sections
from tests.e2e.checkout import copy_checkout, paste
from tests.e2e.systems import System, standalone_system
from tests.services import require_docker

FIRST = "docs/tutorials/first-segmentation.md"
OWN = "docs/tutorials/own-model.md"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_docker()
    with standalone_system(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout") / "inference-server")


@pytest.fixture(autouse=True)
def server(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client finds in its environment."""
    monkeypatch.setenv("INFERENCE_SERVER_URL", system.url)
    monkeypatch.setenv("HOME", str(tmp_path))


def execute(cells: list[str], folder: Path) -> list[str]:
    """Run cells in a notebook; returns what each printed and showed, as text."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return ["".join(map(_text, cell.outputs)) for cell in notebook.cells]


def _text(output: dict[str, object]) -> str:
    if "text" in output:
        return str(output["text"])
    data = output.get("data", {})
    assert isinstance(data, dict), output
    return f"{data.get('text/plain', '')}{' a picture' if 'image/png' in data else ''}"


def test_a_first_segmentation(checkout: Path) -> None:
    prepare = section(FIRST, "A model and a scan")
    paste(checkout, *prepare.commands)
    parts: dict[str, Section] = {each.title: each for each in sections(FIRST)}
    cells = [program for each in parts.values() for program in each.programs]
    connected, ran, report, is_right, picture, saved, failed = execute(cells, checkout)
    assert "'segment'" in connected
    for name in ("mask.nii.gz", "middle.png", "report.json"):
        assert name in ran
        assert (checkout / "result" / name).is_file()
    assert "'volume_ml': 44.552" in report
    assert is_right == "True"
    assert picture.endswith("a picture")
    assert (checkout / "result/middle.png").read_bytes() == (checkout / "docs/pictures/segmentation.png").read_bytes()
    assert saved
    shown = parts["When it fails"].file("text")
    assert failed.strip().endswith(shown.strip())


# The same commands are those of the pages that tests/e2e/test_page_commands.py and test_folder_to_model.py walk.
@pytest.mark.long
def test_a_model_of_your_own_is_broken_and_repaired(checkout: Path) -> None:
    """Where a page shows a text after commands, these print its lines, the commands that fail included."""
    for each in sections(OWN):
        for (language, text), (following, shown) in pairwise([*each.blocks, ("", "")]):
            if language != "":
                continue
            if following != "text":
                paste(checkout, text)
                continue
            printed = paste(checkout, "set +e", text, "true")
            missing = [line for line in shown.splitlines() if line.strip() and line not in printed]
            assert missing == [], printed
    assert (checkout / "edges/square.npy").is_file()
