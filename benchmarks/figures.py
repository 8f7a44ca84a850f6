"""What a benchmark found, for programs: one figure per line, as JSON, beside what it prints for people.

Each benchmark has the option `--json FILE` and records its figures there as it finds them, so that one that fails
later leaves what it had. `benchmarks.run` reads them.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """A bound for what was measured, or for its ratio to the yardstick."""

    bound: float
    of: Literal["value", "ratio"] = "value"
    is_least: bool = False
    """Whether the bound is the least that is wanted; otherwise it is the most."""

    def __str__(self) -> str:
        return f"{'>=' if self.is_least else '<='} {self.bound:g}{' x' if self.of == 'ratio' else ''}"


def at_most(bound: float, of: Literal["value", "ratio"] = "value") -> Goal:
    """Not more than this."""
    return Goal(bound, of)


def at_least(bound: float, of: Literal["value", "ratio"] = "value") -> Goal:
    """Not less than this."""
    return Goal(bound, of, is_least=True)


@dataclass(frozen=True)
class Figure:
    """One measured value; of several of the same name each is at another place of a curve."""

    name: str
    value: float
    unit: str
    yardstick: float | None = None
    """In the same unit, of the same run."""
    ratio: float | None = None
    """To the yardstick; where rounds were compared one by one, the median of their ratios."""
    goal: Goal | None = None
    along: str = ""
    """What a curve runs along: `clients`, `rows`."""
    at: float | None = None
    """Where on it this one is."""

    @property
    def judged(self) -> float | None:
        """What the goal speaks of."""
        return self.ratio if self.goal and self.goal.of == "ratio" else self.value


def compared(
    name: str,
    value: float,
    unit: str,
    yardstick: float,
    *,
    goal: Goal | None = None,
    along: str = "",
    at: float | None = None,
) -> Figure:
    """A figure whose ratio is simply its value over the yardstick."""
    return Figure(name, value, unit, yardstick, value / yardstick if yardstick else None, goal, along, at)


def is_met(figure: Figure) -> bool | None:
    """Whether the goal is met; None without one, or without the ratio that it speaks of."""
    if figure.goal is None or figure.judged is None:
        return None
    bound = figure.goal.bound
    return figure.judged >= bound if figure.goal.is_least else figure.judged <= bound


def verdict(figure: Figure) -> str:
    """`met`, or by which part of the bound it was missed; empty where there is nothing to judge."""
    met = is_met(figure)
    if met is None or figure.goal is None or figure.judged is None:
        return ""
    if met:
        return "met"
    if not figure.goal.bound:
        return "missed"
    part = abs(figure.judged - figure.goal.bound) / figure.goal.bound
    return f"missed by {part:.0%}" if part < 10 else f"missed, {figure.judged / figure.goal.bound:.0f} times the bound"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option `--json`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="append each figure to this file, as a line of JSON")


def record(path: Path | None, *figures: Figure) -> None:
    """Append figures to the file, if there is one."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(figure)) + "\n" for figure in figures)


def read(path: Path) -> list[Figure]:
    """What was recorded; nothing where there is no file."""
    if not path.exists():
        return []
    return [figure_of(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def figure_of(fields: dict[str, object]) -> Figure:
    """A figure out of its JSON."""
    goal = fields.get("goal")
    return Figure(**{**fields, "goal": Goal(**goal) if isinstance(goal, dict) else None})  # type: ignore[arg-type]
