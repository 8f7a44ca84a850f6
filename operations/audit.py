"""`inference-server audit`: checks the audit trail and hands it out. It uses the database directly.

Each command imports what it needs itself, so that it starts fast.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from pydantic import ValidationError

from operations.database import DataDir, fail, open_database

if TYPE_CHECKING:
    from private_api.audit.chain import Entry

_BROKEN = 1

app = typer.Typer(no_args_is_help=True, help="Check who did what to which object, and hand it out.")


@app.command()
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="What `export` wrote. Without it: the server's own trail."),
    ] = None,
    *,
    head: Annotated[
        str | None, typer.Option(help="A hash that was noted earlier; the trail must still have its entry.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check that no entry was changed, removed or inserted. Exit 1: one was."""
    from private_api.audit.chain import BrokenChain, check_entries, check_tail, last_link, read_entries

    try:
        if file is not None:
            last = _walk(check_entries(_read_lines(file), from_start=False), head)
            waiting = 0
        else:
            with open_database(data_dir) as database:
                link = last_link(database)
                last = _walk(check_entries(read_entries(database), from_start=True), head)
                waiting = check_tail(database, last, linked=link.position if link else 0)
    except BrokenChain as error:
        _tell_broken(str(error))
    if last is None:
        typer.echo("the audit trail is empty")
    else:
        typer.echo(f"the audit trail is whole up to entry {last.position} of {last.at:%Y-%m-%d %H:%M:%S} UTC")
        typer.echo(f"head: {last.hash}")
    if waiting:
        typer.echo(f"{waiting} newer events are not linked yet; a running server links them within seconds")


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(dir_okay=False, help="A new file. Without it: stdout.")] = None,
    *,
    after: Annotated[int, typer.Option(min=0, help="Only entries after this position.")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Write the trail as JSON, a line for each entry, the oldest first."""
    from private_api.audit.chain import read_entries

    with open_database(data_dir) as database:
        entries = read_entries(database, after=after)
        if file is None:
            _write(entries, sys.stdout.write)
            return
        try:
            with file.open("x") as target:
                count = _write(entries, target.write)
        except OSError as error:
            fail(f"cannot write {file}: {error.strerror}")
    typer.echo(f"wrote {count} entries to {file}", err=True)


def _write(entries: "Iterable[Entry]", write: Callable[[str], object]) -> int:
    count = 0
    for entry in entries:
        write(entry.model_dump_json() + "\n")
        count += 1
    return count


def _walk(entries: "Iterable[Entry]", head: str | None) -> "Entry | None":
    """The last entry, once all are checked and the one with this hash was among them. Raises `BrokenChain`."""
    from private_api.audit.chain import BrokenChain

    last, is_found = None, head is None
    for last in entries:
        is_found = is_found or last.hash == head
    if not is_found:
        raise BrokenChain(f"no entry has the hash {head}: what was recorded when it was noted is gone")
    return last


def _read_lines(file: Path) -> "Iterator[Entry]":
    from private_api.audit.chain import Entry

    with file.open() as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield Entry.model_validate_json(line)
            except ValidationError:
                fail(f"{file}, line {number}: not an entry of an audit trail")


def _tell_broken(text: str) -> NoReturn:
    typer.echo(f"the audit trail is NOT whole: {text}", err=True)
    raise typer.Exit(_BROKEN)
