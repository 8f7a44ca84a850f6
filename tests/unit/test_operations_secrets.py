"""`inference-server secrets`: made once, never overwritten, unusable ones refused."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from operations.secrets import SecretsError, make_secrets

ROOT = Path(__file__).parents[2]
NAMES = ["postgres_password", "rabbit_password", "rabbitmq.conf", "service_token"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_every_file_is_made_with_a_secret_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert sorted(path.name for path in make_secrets(folder)) == NAMES
    made = contents(folder)
    assert sorted(made) == NAMES
    assert made["rabbitmq.conf"] == f"default_user = inference\ndefault_pass = {made['rabbit_password']}\n"
    passwords = {made[name] for name in NAMES if name != "rabbitmq.conf"}
    assert len(passwords) == 3
    assert all(len(password) == 64 for password in passwords)


def test_only_the_owner_enters_the_folder_and_every_container_reads_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o444}


def test_what_is_there_stays(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = contents(tmp_path)
    assert make_secrets(tmp_path) == []
    assert contents(tmp_path) == before


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "service_token").unlink()
    assert [path.name for path in make_secrets(tmp_path)] == ["service_token"]
    assert contents(tmp_path) == {**before, "service_token": contents(tmp_path)["service_token"]}


@pytest.mark.parametrize("removed", ["rabbit_password", "rabbitmq.conf"])
def test_the_two_files_of_rabbitmq_always_agree(tmp_path: Path, removed: str) -> None:
    make_secrets(tmp_path)
    before = contents(tmp_path)
    (tmp_path / removed).unlink()
    assert [path.name for path in make_secrets(tmp_path)] == [removed]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("service_token", "", "service_token is empty"),
        ("postgres_password", "postgres\n", "postgres_password is a well-known default"),
        ("rabbit_password", "guest", "rabbit_password is a well-known default"),
        ("service_token", "x9!kQ2", "service_token is shorter than 16 characters"),
        ("rabbitmq.conf", "default_user = guest\ndefault_pass = guest\n", "rabbitmq.conf is a well-known default"),
        ("rabbitmq.conf", "", "rabbitmq.conf is empty"),
    ],
)
def test_an_unusable_secret_is_refused_and_nothing_is_written(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SecretsError, match=says) as caught:
        make_secrets(tmp_path)
    assert "remove the file" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_passwords_of_rabbitmq_that_differ_are_refused(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / "rabbit_password").chmod(0o600)
    (tmp_path / "rabbit_password").write_text("0f9e8d7c6b5a4938271605f4e3d2c1b0")
    with pytest.raises(SecretsError, match="is not what"):
        make_secrets(tmp_path)


@pytest.mark.parametrize("command", [["-m", "operations.secrets"], ["operations/secrets.py"]])
def test_it_runs_on_a_bare_python(tmp_path: Path, command: list[str]) -> None:
    """-S: no site-packages; -I would also hide the repository."""
    arguments = [sys.executable, "-S", *command, "--dir", str(tmp_path / "secrets")]
    first = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.count("wrote ") == 4
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_the_exit_code_of_a_refusal_is_2_and_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "service_token").write_text("changeme")
    command = [sys.executable, "-m", "operations", "secrets", "--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path}/service_token is a well-known default" in done.stderr
    assert "Traceback" not in done.stderr
