"""Puts the reference of the commands and of the HTTP API into the pages that ask for it: `<!-- reference: NAME -->`.

It is written from the programs themselves while Sphinx reads a page, so no file can be out of date.
"""

import re
from typing import Any

import http_reference
import typer
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click

from contract.access import DoorPolicy
from inference_client.cli.app import build_app
from operations.cli import app as operator_app
from public_api.app import create_app

_MARK = re.compile(r"^<!-- reference: (?P<name>\S+) -->$", re.MULTILINE)


def _commands(app: typer.Typer, name: str) -> str:
    command = typer.main.get_command(app)
    with command.make_context(name, [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name=name, indent=1)
    # Typer marks paragraphs whose lines stay as they are; in Markdown that is a block of code.
    return re.sub(r"^\x08\n(.*?)\n$", r"```text\n\1\n```\n", text, flags=re.DOTALL | re.MULTILINE)


def _calls() -> str:
    door = create_app(
        private_url="http://private-api", service_token="", policy=DoorPolicy(requires_key=True, opens_models=False)
    )
    return http_reference.describe(door.openapi())


_WRITERS = {
    "infer": lambda: _commands(build_app(), "infer"),
    "inference-server": lambda: _commands(operator_app, "inference-server"),
    "http": _calls,
}


def _fill_in(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda match: _WRITERS[match["name"]](), source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _fill_in)
    return {"parallel_read_safe": True}
