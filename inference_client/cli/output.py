"""What `infer` prints on stdout: results as JSON, as tables on a terminal, and as plain text elsewhere.

The only module that writes there but for the version, and what others wrote goes through `terminal_text` on its way.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from inference_client.terminal_text import LogText, one_line, printable

JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout, errors too.")]
SHORT_UID = 12
"""Characters of a uid that tables on a terminal show: enough to name the task."""
_STYLES = {
    "finished": "green",
    "ready": "green",
    "failed": "red",
    "failing": "red",
    "queued": "yellow",
    "leased": "cyan",
    "draining": "yellow",
    "running": "cyan",
    "starting": "cyan",
    "cancelled": "dim",
    "ended": "dim",
}
"""Of a status that begins with this word."""
_GAP = "  "


def print_json(value: BaseModel | Any) -> None:
    """Print one JSON document in ASCII: no terminal's width, colours or encoding change it."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    typer.echo(json.dumps(plain, indent=2))


def print_line(text: str) -> None:
    """Print one line of text."""
    typer.echo(one_line(text))


def print_path(path: Path) -> None:
    """Print a path of this machine exactly as it is: programs read it."""
    typer.echo(str(path))


def print_blank() -> None:
    """Separate two lists."""
    typer.echo()


def print_bytes(pieces: Iterable[bytes]) -> None:
    """Write bytes exactly as they are, each piece as it comes."""
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def print_log(pieces: Iterable[bytes]) -> None:
    """Write text as it comes, in UTF-8 if not to a terminal; of what a terminal obeys, only colours."""
    text = LogText()
    try:
        for piece in pieces:
            _write(text.clean(piece))
    finally:
        _write(text.clean(b"", final=True))


def is_terminal() -> bool:
    """Whether somebody reads stdout, rather than a program or a file."""
    return sys.stdout.isatty()


def print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a list. Nothing is ever cut: what a terminal is too narrow for is folded."""
    shown = [tuple(map(one_line, row)) for row in rows]
    if not is_terminal():
        _print_aligned([header, *shown])
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in shown:
        table.add_row(*(_style(name, cell) for name, cell in zip(header, row, strict=True)))
    _print_rich(table)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values of one thing."""
    shown = [(one_line(name), printable(value)) for name, value in facts]
    if not is_terminal():
        # What has several lines goes on below its first one.
        below = "\n" + " " * (max(len(name) for name, _ in shown) + len(_GAP))
        _print_aligned([(name, value.replace("\n", below)) for name, value in shown])
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in shown:
        table.add_row(name, _style(name, value))
    _print_rich(table)


def show_moment(moment: datetime) -> str:
    """A time for people in their own zone, which it names; for programs in UTC, in RFC 3339."""
    if is_terminal():
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return moment.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def show_uid(uid: str) -> str:
    """A uid in a list: for people its beginning, which every command understands."""
    return uid[:SHORT_UID] if is_terminal() else uid


def _print_aligned(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo(_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _write(text: str) -> None:
    if is_terminal():
        typer.echo(text, nl=False)
    else:
        print_bytes([text.encode()])


def _style(name: str, text: str) -> Any:
    from rich.text import Text

    is_status = name.lower() == "status"
    return Text(text, style=_STYLES.get(text.partition(",")[0], "") if is_status else "")


def _print_rich(table: Any) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False, emoji=False).print(table)
