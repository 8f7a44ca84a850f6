"""`inference-server backup` and `restore` as an operator types them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from operations.cli import app
from private_api.archives import ArchiveStore
from private_api.database import Database
from private_api.task_logs import TaskLogs
from tests.databases import copy_sqlite
from tests.integration.task_harness import Harness

SECRET = "a-password-nobody-may-see"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def standalone(sqlite_template: Path, tmp_path: Path) -> Path:
    """The data folder of a standalone server with one task."""
    folder = tmp_path / "data"
    folder.mkdir()
    copy_sqlite(sqlite_template, folder)
    (folder / "inference.sqlite").rename(folder / "inference.db")
    database = Database(f"sqlite:///{folder}/inference.db")
    harness = Harness(database, ArchiveStore(folder / "archives"), TaskLogs(folder / "logs"))
    harness.register()
    harness.submit()
    database.close()
    return folder


def test_a_standalone_server_is_backed_up_and_restored(standalone: Path, tmp_path: Path) -> None:
    done = run("backup", tmp_path / "backup", "--data-dir", standalone)
    assert (done.exit_code, done.stdout.startswith("backup complete: 1 tasks as of ")) == (0, True)
    done = run("restore", tmp_path / "backup", "--data-dir", tmp_path / "new")
    assert done.exit_code == 0
    assert done.stdout.endswith("1 of them wait to run\n")
    done = run("restore", tmp_path / "backup", "--data-dir", tmp_path / "new")
    assert done.exit_code == 2
    assert "is not empty: it has archives/inputs/" in done.stderr


def test_a_backup_of_a_server_that_lost_a_file_is_complete_and_says_so(standalone: Path, tmp_path: Path) -> None:
    next((standalone / "archives/inputs").iterdir()).unlink()
    done = run("backup", tmp_path / "backup", "--data-dir", standalone)
    assert done.exit_code == 1
    assert "1 files were missing or damaged on the server itself" in done.stderr
    assert (tmp_path / "backup/manifest.json").exists()


def test_a_folder_without_a_server_is_not_taken_for_one(tmp_path: Path) -> None:
    done = run("backup", tmp_path / "backup", "--data-dir", tmp_path / "nothing")
    assert (done.exit_code, done.stderr) == (
        2,
        f"cannot back up: {tmp_path}/nothing is not the data folder of a standalone server\n",
    )
    assert not (tmp_path / "nothing").exists()


def test_the_variables_of_the_private_api_say_where_everything_is(
    standalone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{standalone}/inference.db")
    monkeypatch.setenv("DATA_DIR", str(standalone))
    assert run("backup", tmp_path / "backup").exit_code == 0


def test_a_missing_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "POSTGRES_HOSTNAME", "POSTGRES_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    done = run("backup", tmp_path / "backup")
    assert done.exit_code == 2
    assert "POSTGRES_PASSWORD" in done.stderr


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql+psycopg2://inference:{SECRET}@127.0.0.1:1/inference")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    done = run("backup", tmp_path / "backup")
    assert done.exit_code == 2
    assert "port 1 failed: Connection refused" in done.stderr
    assert SECRET not in done.output
