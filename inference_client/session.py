"""What every `infer` command shares: the options, the connection, and the one way to put a result on stdout."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from contract.settings import environment
from inference_client.client import InferenceClient
from inference_client.config import ClientConfig, load_config
from inference_client.display import Display

JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout, errors too.")]


@dataclass(frozen=True)
class Session:
    """One call of `infer`, as the options before the command say."""

    server: str | None
    grpc: str | None
    key: str | None
    ca: str | None

    def configure(self, display: Display) -> ClientConfig:
        """The settled values; what the user should know of them is told. Raises `UnusableInput`."""
        config = load_config(environment(), server=self.server, grpc=self.grpc, key=self.key, ca=self.ca)
        for warning in config.warnings:
            display.warn(warning)
        return config

    def connect(self, display: Display) -> InferenceClient:
        """A client of the configured server; the caller closes it. Raises `UnusableInput`."""
        config = self.configure(display)
        return InferenceClient(config.server, key=config.key, verify=config.ca or True)


def session_of(context: typer.Context) -> Session:
    """What the callback of the whole command stored."""
    session: Session = context.obj
    return session


def print_json(value: BaseModel | Any) -> None:
    """One JSON document in ASCII: no terminal's width, colours or encoding change it."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    typer.echo(json.dumps(plain, indent=2))


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Aligned columns, never cut: what is printed can be copied or piped."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
