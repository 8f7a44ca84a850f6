"""Clients that public generators make of a server's OpenAPI do the main job against that server."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.systems import System, standalone_system
from tests.services import missing
from tests.zips import make_zip, zip_folder

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-openapi" / "bin"
WORDCOUNT = ROOT / "examples" / "wordcount"
REGISTER = """
import json, sys
from pathlib import Path
from inference_server_client import Client
from inference_server_client.api.models import list_models, register_model
from inference_server_client.models import ErrorBody
from inference_server_client.types import File

url, model_zip = sys.argv[1:]
client = Client(url, timeout=120)
wanted = {"human_readable_id": "echo", "container_tag": "process:count.py", "model_available": True}
with open(model_zip, "rb") as file:
    model = register_model.sync(client=client, body=File(file), **wanted)
again = register_model.sync_detailed(client=client, body=File(Path(model_zip).open("rb")), **wanted)
assert isinstance(again.parsed, ErrorBody)
listed = [each.human_readable_id for each in list_models.sync(client=client)]
print(json.dumps([model.human_readable_id, model.version, again.status_code, again.parsed.error, listed]))
"""
LOOK = """
import json, sys
from inference_server_client import AuthenticatedClient, Client
from inference_server_client.api.tasks import cancel_task, delete_task, list_tasks, show_log, show_task

url, uid, key = sys.argv[1:]
client = Client(url, timeout=120)
with_key = AuthenticatedClient(url, token=key, timeout=120)
print(json.dumps([
    show_log.sync(uid, client=client),
    cancel_task.sync(uid, client=client).status,
    list_tasks.sync_detailed(client=client).status_code,
    [task.uid for task in list_tasks.sync(client=with_key)],
    delete_task.sync_detailed(uid, client=client).status_code,
    show_task.sync(uid, client=client).error,
]))
"""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with standalone_system(tmp_path, engine="process") as running:
        yield running


@pytest.fixture
def generated(system: System, tmp_path: Path) -> Path:
    """The folder of the generated package `inference_server_client`."""
    if not (TOOLS / "openapi-python-client").exists():
        missing("there is no generator of clients; make openapi-clients")
    folder = tmp_path / "generated"
    folder.mkdir()
    command = ["openapi-python-client", "generate", "--url", f"{system.url}/openapi.json"]
    command += ["--meta", "none", "--output-path", str(folder / "inference_server_client")]
    done = run(folder, str(TOOLS / command[0]), *command[1:])
    assert set(re.findall(r"WARNING parsing (.*) within", done)) == {"POST /api/models/", "POST /api/tasks/"}, done
    assert set(re.findall(r"^Unsupported.*", done, re.MULTILINE)) == {"Unsupported content type application/zip"}
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a command with the generated package in reach; returns what it printed."""
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def documented_script(url: str) -> str:
    """The script of the page about the HTTP API, for the server at `url`."""
    page = (ROOT / "docs" / "http-api.md").read_text()
    (script,) = [text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "submit_task" in text]
    return script.replace("http://127.0.0.1:8000", url)


def test_types_that_openapi_typescript_makes_fit_the_main_job(system: System, tmp_path: Path) -> None:
    if not shutil.which("npm"):
        pytest.skip("no npm is installed")
    modules = TOOLS.parent / "typescript" / "node_modules"
    if not modules.exists():
        missing("there is no openapi-typescript; make openapi-clients")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(ROOT / "tests" / "typescript" / "main_job.ts", tmp_path)
    (tmp_path / "model.zip").write_bytes(zip_folder(WORDCOUNT))
    (tmp_path / "input.zip").write_bytes(make_zip({"text.txt": b"a zip in, a zip out\n"}))
    bin_folder = modules / ".bin"
    run(tmp_path, str(bin_folder / "openapi-typescript"), f"{system.url}/openapi.json", "-o", "api.d.ts")
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--types", "node"]
    run(tmp_path, str(bin_folder / "tsc"), *options, "main_job.ts")
    seen = json.loads(run(tmp_path, "node", "main_job.js", system.url, "model.zip", "input.zip", "output.zip"))
    assert seen == ["finished", [1], 554, "TaskNotFound"]
    with zipfile.ZipFile(tmp_path / "output.zip") as archive:
        assert sorted(archive.namelist()) == ["summary.json", "words.csv"]


def test_a_generated_python_client_does_the_main_job(system: System, generated: Path) -> None:
    python = str(TOOLS / "python")
    (generated / "model.zip").write_bytes(zip_folder(WORDCOUNT))
    (generated / "input.zip").write_bytes(make_zip({"text.txt": b"a zip in, a zip out\n"}))
    registered = run(generated, python, "-c", REGISTER, system.url, "model.zip")
    assert json.loads(registered) == ["echo", 1, 409, "ModelExists", ["echo"]]
    (uid,) = run(generated, python, "-c", documented_script(system.url) + "print(uid)").split()
    with zipfile.ZipFile(generated / "output.zip") as archive:
        assert sorted(archive.namelist()) == ["summary.json", "words.csv"]
    place = ["--data-dir", str(system.data_dir)]
    key = subprocess.run(
        [sys.executable, *("-m", "operations", "keys", "create", "--owner", "lab", "--scope", "submit"), *place],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(run(generated, python, "-c", LOOK, system.url, uid, key.stdout.strip()))
    assert seen == ["file 1 of 1: text.txt: 6 words\n", "finished", 401, [], 204, "TaskRecordNotFound"]
