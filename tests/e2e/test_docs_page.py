"""`/docs` in a real browser: the main job by mouse, and keys, on the public and on the private API."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Operation, apply_traefiks_policy, authorize, open_page, require_chromium
from tests.e2e.by_mouse import do_main_job, shown_json
from tests.e2e.systems import System, standalone_system
from tests.running_api import run_private_api
from tests.zips import zip_folder

ROOT = Path(__file__).parents[2]
WORDCOUNT = ROOT / "examples" / "wordcount"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_chromium()
    with standalone_system(tmp_path_factory.mktemp("server"), engine="process") as running:
        yield running


# `make test` has it behind TLS, in tests/e2e/test_stack.py.
@pytest.mark.long
def test_the_main_job_is_done_by_mouse(system: System, tmp_path: Path) -> None:
    log, output = do_main_job(
        system.url, tmp_path, image="process:count.py", model_zip=zip_folder(WORDCOUNT), text=b"a zip in, a zip out\n"
    )
    assert "words" in log
    with zipfile.ZipFile(output) as archive:
        assert sorted(archive.namelist()) == ["summary.json", "words.csv"]


def test_a_model_without_a_zip_is_registered_by_mouse(system: System) -> None:
    with open_page(f"{system.url}/docs") as page:
        register = Operation(page, "models", "register_model")
        register.fill(human_readable_id="bare", container_tag="busybox:1.37")
        status, body = register.execute()
        assert status == 200, body
        assert '"model_available": false' in body


def test_the_page_shows_what_an_unknown_task_is_answered(system: System, tmp_path: Path) -> None:
    with open_page(f"{system.url}/docs") as page:
        poll = Operation(page, "tasks", "poll_task")
        poll.fill(uid="0" * 64)
        status, body = poll.execute()
        poll.block.screenshot(path=tmp_path / "unknown.png")
        assert status == 554
        assert '"error": "TaskNotFound"' in body
        for code in ("551", "552", "553", "554"):
            assert poll.block.locator(f'.response[data-code="{code}"]').first.is_visible()


def test_the_page_works_under_the_policy_that_traefik_sends(system: System) -> None:
    with open_page("about:blank", system.url) as page:
        apply_traefiks_policy(page, "**/docs")
        page.goto(f"{system.url}/docs")
        assert Operation(page, "models", "list_models").execute()[0] == 200


def test_a_key_that_is_typed_into_the_page_is_sent(tmp_path: Path) -> None:
    require_chromium()
    with standalone_system(tmp_path, engine="process", extra=["--require-api-key"]) as system:
        command = ["keys", "create", "--owner", "lab", "--scope", "submit", "--data-dir", str(system.data_dir)]
        made = subprocess.run(
            [sys.executable, "-m", "operations", *command], capture_output=True, text=True, check=True
        )
        with open_page(f"{system.url}/docs") as page:
            tasks = Operation(page, "tasks", "list_tasks")
            assert tasks.execute()[0] == 401
            authorize(page, "key", made.stdout.strip())
            assert tasks.execute()[0] == 200


def test_the_private_api_is_used_with_its_token(sqlite_url: str, tmp_path: Path) -> None:
    require_chromium()
    with run_private_api(sqlite_url, tmp_path / "data") as api, open_page(f"{api.url}/docs") as page:
        models = Operation(page, "models", "list_models")
        assert models.execute()[0] == 401
        authorize(page, "service_token", api.token)
        status, body = models.execute()
        page.screenshot(path=tmp_path / "private.png")
        assert (status, shown_json(body)) == (200, [])
