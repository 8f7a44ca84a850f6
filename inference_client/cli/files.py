"""`infer files` and `infer cat`: single files of a task's output or input."""

from typing import TYPE_CHECKING, Annotated

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import (
    JsonOption,
    is_terminal,
    print_bytes,
    print_json,
    print_log,
    print_table,
    show_moment,
)
from inference_client.cli.server_options import server_options
from inference_client.cli.suggestions import suggesting
from inference_client.cli.uids import UidArgument, named_task
from inference_client.errors import FileNotFound
from inference_client.units import format_size

if TYPE_CHECKING:
    from inference_client.stored_files import Side

InputOption = Annotated[bool, typer.Option("--input", help="Of the input instead of the output.")]


def list_files(
    context: typer.Context, uid: UidArgument, of_input: InputOption = False, as_json: JsonOption = False
) -> None:
    """List the files inside a task's output, or with --input its input."""
    with server_options(context).connect(Display(quiet=as_json)) as client, named_task(client, uid) as whole:
        files = list(client.list_files(whole, of=_side(of_input)))
    if as_json:
        print_json([file.model_dump(mode="json") for file in files])
        return
    rows = [
        (file.path, format_size(file.size_bytes), show_moment(file.modified_at) if file.modified_at else "-")
        for file in files
    ]
    print_table(("PATH", "SIZE", "MODIFIED"), rows)


def print_file(
    context: typer.Context,
    uid: UidArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Its path, as `infer files` shows it.")],
    of_input: InputOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an error as JSON on stdout.")] = False,
) -> None:
    """Write one file of a task's output, or with --input its input, to stdout, without fetching the others.

    On a terminal, control characters are replaced; to a file or a pipe the bytes go as they are.
    """
    side = _side(of_input)
    with (
        server_options(context).connect(Display(quiet=as_json)) as client,
        named_task(client, uid) as whole,
        suggesting(FileNotFound, path, lambda: (file.path for file in client.list_files(whole, of=side))),
    ):
        pieces = client.read_file(whole, path, of=side)
        print_log(pieces) if is_terminal() else print_bytes(pieces)


def _side(of_input: bool) -> "Side":
    return "input" if of_input else "output"
