"""What users install: the wheel of the client, in an environment that holds nothing else of this repository."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.systems import System, standalone_system

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "inference_client"
SERVER_PACKAGES = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)
VERSION = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["version"]
METADATA = f"inferenceserver_client-{VERSION}.dist-info"
SERVER_LIBRARIES = {"alembic", "docker", "fastapi", "grpcio", "pika", "psycopg2-binary", "sqlalchemy", "uvicorn"}
TOP_LEVEL = """
import importlib.metadata as metadata, json
names = metadata.packages_distributions()
print(json.dumps({name: sorted(map(str.lower, found)) for name, found in names.items()}))
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    # A home of its own, and nothing of this repository on the path.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "INFERENCE_"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=inherited | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=CLIENT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def user(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment that held nothing before the wheel."""
    folder = tmp_path_factory.mktemp("user")
    run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    run(folder / "env/bin/pip", "install", "--quiet", wheel, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with standalone_system(tmp_path_factory.mktemp("server"), engine="process") as system:
        yield system


def test_both_distributions_have_one_version_and_one_licence() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_holds_one_import_package_with_its_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"inference_client", METADATA}
    modules = {path.relative_to(ROOT).as_posix() for path in CLIENT.rglob("*.py")}
    assert {name for name in names if name.startswith("inference_client/")} == {*modules, "inference_client/py.typed"}
    assert f"{METADATA}/licenses/LICENSE" in names


def test_the_sdist_makes_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=source)
    again = zipfile.ZipFile(tmp_path / "again" / wheel.name)
    assert {name: again.read(name) for name in again.namelist()} == {
        name: zipfile.ZipFile(wheel).read(name) for name in zipfile.ZipFile(wheel).namelist()
    }


def test_an_empty_environment_gets_the_client_and_nothing_of_the_server(user: Path) -> None:
    listed = run(user / "env/bin/pip", "list", cwd=user)
    top_level = json.loads(run(user / "env/bin/python", "-c", TOP_LEVEL, cwd=user))
    print(listed, sorted(top_level))
    assert top_level["inference_client"] == ["inferenceserver-client"]
    assert [name for name, found in top_level.items() if "inferenceserver-client" in found] == ["inference_client"]
    assert not SERVER_PACKAGES & top_level.keys()
    assert not SERVER_LIBRARIES & {library for found in top_level.values() for library in found}


def test_the_servers_distribution_does_not_hold_the_client() -> None:
    assert "inference_client" not in SERVER_PACKAGES


def test_the_installed_command_does_a_main_job(user: Path, server: System) -> None:
    variables = {"HOME": str(user), "INFERENCE_SERVER_URL": server.url}
    infer = user / "env/bin/infer"
    assert run(infer, "--version", cwd=user) == f"infer {VERSION}\n"
    (user / "text.txt").write_text("one two two")
    archive = ROOT / "examples/wordcount"
    run(infer, "models", "add", "process:count.py", "words", "--archive-folder", archive, cwd=user, **variables)
    run(infer, "submit", "words", "text.txt", "-o", "result", "--extract", cwd=user, **variables)
    assert any("two" in path.read_text() for path in (user / "result").rglob("*") if path.is_file())
    (user / "other.txt").write_text("three")
    each = (infer, "submit", "words", "text.txt", "other.txt", "--each", "-o", "results")
    assert run(*each, "--extract", cwd=user, **variables) == "results\n"
    found = {path.parent.name: path.read_text() for path in (user / "results").rglob("*") if path.is_file()}
    assert {name: "three" in text for name, text in found.items()} == {"text.txt": False, "other.txt": True}
    run(*each, cwd=user, **variables)
    assert zipfile.is_zipfile(user / "results/other.txt.zip")


SCRIPT = """
from pathlib import Path

from inference_client import InferenceClient

with InferenceClient("http://127.0.0.1:8000") as client:
    reveal_type(client.submit("seg", Path("ct.nii.gz")))
    reveal_type(client.wait("uid").status)
    reveal_type(client.run("seg", "ct.nii.gz")["mask.nii.gz"].read_bytes())
    for result in client.map("seg", Path("cases").iterdir()):
        result.output.save(Path("results") / result.case.name)
"""


def check_types(user: Path, script: str) -> tuple[int, str]:
    (user / "script.py").write_text(script)
    command = ["-m", "mypy", "--strict", "--python-executable", user / "env/bin/python", "script.py"]
    done = subprocess.run([sys.executable, *map(str, command)], cwd=user, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_users_script_sees_types(user: Path) -> None:
    code, said = check_types(user, SCRIPT)
    assert code == 0, said
    assert 'Revealed type is "str"' in said.replace("builtins.", "")
    assert 'inference_client.statuses.Status"' in said
    code, said = check_types(user, SCRIPT.replace('"seg"', "3"))
    assert code == 1
    assert 'Argument 1 to "submit" of "InferenceClient" has incompatible type "int"' in said
