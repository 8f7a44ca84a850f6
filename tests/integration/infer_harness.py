"""What tests of the `infer` command share: a real server with keys, and a user at a terminal or in a script."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.access import Scope
from inference_client import InferenceClient, ModelRegistration
from private_api.database import Database
from private_api.keys import create_key
from tests.commands import run_command
from tests.integration.public_door import serve_door
from tests.running_api import RunningApi, run_private_api
from tests.terminal import Answer, Shown, run_in_terminal

MODELS = ("segment-lungs", "segment-liver", "echo")


@dataclass(frozen=True)
class Server:
    """An open server with `MODELS`, and a key of it."""

    url: str
    closed_url: str
    """The same server behind a door that wants a key."""
    key: str
    operator_key: str
    api: RunningApi
    """What is behind its doors."""


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    database_url = f"sqlite:///{folder / 'db'}"
    with (
        run_private_api(database_url, folder) as api,
        serve_door(api.url) as url,
        serve_door(api.url, require_key=True) as closed_url,
    ):
        database = Database(database_url)
        key = create_key(database, owner="ada", scopes=[Scope.SUBMIT, Scope.MODELS], lifetime=None)
        operator_key = create_key(database, owner="carol", scopes=[Scope.OPERATE], lifetime=None)
        database.close()
        with InferenceClient(url) as client:
            for model in MODELS:
                client.add_model(ModelRegistration(human_readable_id=model, container_tag=f"{model}:1"))
        yield Server(url, closed_url, key, operator_key, api)


class User:
    """Somebody with a home of their own. `variables` are in their environment."""

    def __init__(self, home: Path, **variables: str) -> None:
        home.mkdir(exist_ok=True)
        (home / "scan").write_text("pixels")
        self.home = home
        self.config = home / ".config" / "inference-server" / "config.toml"
        self.remembered = home / ".local" / "state" / "inference-server" / "tasks.jsonl"
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "TZ": "Asia/Kathmandu",
            **variables,
        }

    def types(self, *arguments: str, answers: Sequence[Answer] = ()) -> Shown:
        """At a terminal."""
        return run_in_terminal(arguments, self.environment, answers)

    def pipes(self, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """In a script."""
        return run_command("inference_client", *arguments, env=self.environment | variables, stdin=stdin)

    def submits(self, model: str) -> str:
        """Submits a task and returns its uid."""
        ended = self.pipes("submit", model, str(self.home / "scan"))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()
