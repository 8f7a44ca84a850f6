"""What a program without a container may read of the machine, wherever the server's Python is installed."""

import sys
from pathlib import Path

import pytest

from job_consumer.engines.process.view import readable_paths


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("mine")
    monkeypatch.setenv("HOME", str(home))
    return home


def install(monkeypatch: pytest.MonkeyPatch, executable: Path, base: Path, venv: Path | None = None) -> None:
    """As the interpreter would see itself there."""
    for name in ("base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(base))
    for name in ("prefix", "exec_prefix"):
        monkeypatch.setattr(sys, name, str(venv or base))
    monkeypatch.setattr(sys, "executable", str(executable))


def reached(home: Path) -> set[str]:
    """What of the home is readable, by its own name; links only lead there."""
    found = readable_paths([], [])
    return {str(path.relative_to(home)) for path in found if path.is_relative_to(home)}


def test_every_link_to_the_interpreter_is_there_and_nothing_beside_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = home / "pythons/3.12.5"
    (base / "bin").mkdir(parents=True)
    (base / "bin/python3.12").write_text("")
    (home / "pythons/3.12").symlink_to("3.12.5")
    (home / "python").symlink_to(home / "pythons/3.12/bin/python3.12")
    venv = home / "app/.venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(home / "python")
    install(monkeypatch, venv / "bin/python", base, venv)
    assert reached(home) == {"pythons/3.12.5", "app/.venv", "app/.venv/bin/python", "python", "pythons/3.12"}


@pytest.mark.parametrize("prefix", [".", ".local"])
def test_of_a_prefix_that_holds_more_than_python_only_programs_and_libraries_are_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    for part in ("bin", "lib", "share/keyrings"):
        (home / prefix / part).mkdir(parents=True)
    (home / prefix / "bin/python3").write_text("")
    install(monkeypatch, home / prefix / "bin/python3", home / prefix)
    assert reached(home) == {str(Path(prefix, part)) for part in ("bin", "lib")}
