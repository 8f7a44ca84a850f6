"""The results of benchmarks: kept as JSON, shown as one table and as pictures of their curves."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.figures import Figure, figure_of, verdict
from benchmarks.svg import Curve, draw

JSON, TABLE = "results.json", "results.md"
_HEAD = """# Results of `make bench`

What one run of each program found; [benchmarks](../benchmarks.md) says what they measure and what the goals mean. The
sizes are in the commands below, and goals speak of those of a `full` run. Load is the average of a minute, before and
after. This page is written by `make bench`.
"""


@dataclass(frozen=True)
class Result:
    """One run of one benchmark."""

    name: str
    command: str
    size: str
    at: str
    """When it began, UTC."""
    seconds: float
    load_before: float
    load_after: float
    machine: dict[str, str]
    problem: str = ""
    """Why it did not run to its end; empty if it did."""
    figures: list[Figure] = field(default_factory=list)


def read(folder: Path) -> dict[str, Result]:
    """The results that a folder has, by name."""
    path = folder / JSON
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    results = [Result(**{**row, "figures": [figure_of(figure) for figure in row["figures"]]}) for row in rows]
    return {result.name: result for result in results}


def write(folder: Path, results: Iterable[Result]) -> None:
    """Replace the folder's results: JSON, table and pictures."""
    results = list(results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n", encoding="utf-8")
    for old in folder.glob("*.svg"):
        old.unlink()
    shown = {}
    for result in results:
        for number, (title, picture) in enumerate(pictures(result), 1):
            name = f"{result.name}-{number}.svg"
            (folder / name).write_text(picture, encoding="utf-8")
            shown[name] = f"{result.name}: {title}"
    images = [f"![{title}]({name})\n" for name, title in shown.items()]
    curves = ["## Curves\n", *images] if images else []
    (folder / TABLE).write_text("\n".join([_HEAD, table(results), *machines(results), *curves]), encoding="utf-8")


def table(results: Iterable[Result]) -> str:
    """Every figure as a row, and one for each benchmark that has none."""
    rows = [
        "| benchmark | figure | goal | yardstick | result | ratio | verdict | load | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        load = f"{result.load_before:.1f}, {result.load_after:.1f}"
        ran = [load, f"{result.seconds:.0f}"]
        rows += [_row([result.name, *_cells(figure), *ran]) for figure in result.figures]
        if result.problem:
            rows.append(_row([result.name, "", "", "", "", "", result.problem, *ran]))
    return "\n".join([*rows, ""])


def _cells(figure: Figure) -> list[str]:
    place = "" if figure.at is None else f" ({figure.along}: {figure.at:g})"
    yardstick = "" if figure.yardstick is None else number(figure.yardstick, figure.unit)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
    goal = str(figure.goal) if figure.goal else ""
    return [f"{figure.name}{place}", goal, yardstick, number(figure.value, figure.unit), ratio, verdict(figure)]


def number(value: float, unit: str) -> str:
    """Three digits and the unit."""
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}{'' if unit.startswith('/') else ' '}{unit}".strip()


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def machines(results: Iterable[Result]) -> Iterator[str]:
    """Where each ran, and with which command; alike machines once."""
    by_machine: dict[str, list[Result]] = {}
    for result in results:
        described = ", ".join(f"{name} {value}" for name, value in result.machine.items() if value)
        by_machine.setdefault(described, []).append(result)
    yield "## Commands and machines\n"
    for described, ran in by_machine.items():
        yield f"On {described}:\n"
        yield "| benchmark | command | size | began (UTC) |\n|---|---|---|---|"
        yield "".join(f"{_row([each.name, f'`{each.command}`', each.size, each.at])}\n" for each in ran)


def pictures(result: Result) -> Iterator[tuple[str, str]]:
    """The title and the picture of each unit of a result that has figures at more than one place of a curve."""
    curves: dict[tuple[str, str], dict[str, list[Figure]]] = {}
    for figure in result.figures:
        if figure.at is not None and figure.at > 0:
            curves.setdefault((figure.along, figure.unit), {}).setdefault(figure.name, []).append(figure)
    for (along, unit), named in curves.items():
        drawn: list[Curve] = []
        for name, figures in named.items():
            ordered = sorted(figures, key=lambda figure: figure.at or 0)
            if len(ordered) < 2:
                continue
            drawn.append(Curve(name, tuple((each.at or 0, each.value) for each in ordered)))
            yardstick = tuple((each.at or 0, each.yardstick) for each in ordered if each.yardstick is not None)
            if len(yardstick) > 1:
                drawn.append(Curve(f"{name}, yardstick", yardstick, is_dashed=True))
        if drawn:
            title = f"{', '.join(curve.name for curve in drawn if not curve.is_dashed)}, by {along}"
            yield title, draw(title, along, unit, drawn)
