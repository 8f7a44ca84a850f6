"""Changing the file with the user's settings."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_client.config_file import read_values, write_values
from inference_client.errors import UnusableInput


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_a_new_file_belongs_to_the_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    before = os.umask(0)
    try:
        write_values(path, {"server": "http://server", "key": "secret", "grpc": None})
    finally:
        os.umask(before)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert read_values(path) == {"server": "http://server", "key": "secret"}


def test_what_is_not_changed_stays_with_its_comments(path: Path) -> None:
    path.write_text('# mine\nserver = "http://old"  # the old one\n\nca = "/ca.pem"\n')
    path.chmod(0o644)
    write_values(path, {"server": "http://new"})
    assert path.read_text() == '# mine\n\nca = "/ca.pem"\nserver = "http://new"\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_value_over_several_lines_is_replaced_as_well(path: Path) -> None:
    path.write_text('key = """\nold"""\nca = "/ca.pem"\n')
    write_values(path, {"key": "new"})
    assert read_values(path) == {"key": "new", "ca": "/ca.pem"}


def test_the_file_behind_a_link_is_changed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept-elsewhere.toml"
    target.write_text("")
    path.symlink_to(target)
    write_values(path, {"key": "new"})
    assert path.is_symlink()
    assert read_values(target) == {"key": "new"}


def test_a_file_that_is_no_toml_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("key = secret")
    with pytest.raises(UnusableInput) as caught:
        write_values(path, {"key": "new"})
    assert "secret" not in str(caught.value)
    assert path.read_text() == "key = secret"
    assert list(path.parent.iterdir()) == [path]


@given(st.text(st.characters(codec="utf-8")))
def test_every_text_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.mktemp("any") / "config.toml"
    write_values(path, {"server": value})
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {"server": value}
    write_values(path, {"server": None, "key": value})
    assert read_values(path) == {"key": value}
