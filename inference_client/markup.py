"""HTML for notebooks. The only place that writes any: every text in it is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

_CELL = "text-align: left; vertical-align: top; white-space: pre-wrap"


def html_table(caption: str, rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """A table; without a `header` the first cell of each row names it."""
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{_row(row, is_named=not header)}</tr>" for row in rows)
    return (
        f'<table><caption style="text-align: left">{escape(caption)}</caption>'
        f"{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
    )


def html_progress(text: str, done: int | None = None, total: int | None = None) -> str:
    """A line, with a bar where something is counted: a moving one if the total is unknown."""
    if done is None:
        return f"<div>{escape(text)}</div>"
    share = f' value="{done}" max="{max(total, 1)}"' if total is not None else ""
    return f"<div><progress{share}></progress> {escape(text)}</div>"


def _row(row: Sequence[str], *, is_named: bool) -> str:
    tags = ["th" if is_named and not number else "td" for number in range(len(row))]
    return "".join(f'<{tag} style="{_CELL}">{escape(cell)}</{tag}>' for tag, cell in zip(tags, row, strict=True))
