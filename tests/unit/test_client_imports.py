"""What the client imports only when it is needed: the HTTP client takes longest."""

import subprocess
import sys

import pytest

import inference_client

_ASK = (
    "import sys; from inference_client.cli import run; run({arguments!r}); print(*sorted(sys.modules), file=sys.stderr)"
)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["submit", "--help"], ["models", "--help"]])
def test_commands_that_ask_no_server_load_no_http_client(arguments: list[str]) -> None:
    command = [sys.executable, "-c", _ASK.format(arguments=arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout
    loaded = done.stderr.split()
    assert "inference_client.cli" in loaded
    assert {"httpx", "rich.progress", "greenlet"}.isdisjoint(loaded)


def test_the_version_is_told_without_the_commands() -> None:
    command = [sys.executable, "-c", _ASK.format(arguments=["--version"])]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stderr.split()
    assert "inference_client.cli.version" in loaded
    assert {"typer", "pydantic"}.isdisjoint(loaded)


@pytest.mark.parametrize("name", inference_client.__all__)
def test_every_name_of_the_package_is_there(name: str) -> None:
    assert getattr(inference_client, name).__name__ == name
    assert name in dir(inference_client)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        inference_client.Client  # noqa: B018
