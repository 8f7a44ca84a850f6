"""Figures of benchmarks: what is written is what is read, and a goal is judged by what it speaks of."""

from pathlib import Path

import pytest

from benchmarks.figures import Figure, at_least, at_most, compared, is_met, read, record, verdict


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    figures = [
        Figure("a rate", 30.0, "/s", 40.0, 0.75, at_least(0.95, "ratio"), "consumers", 2.0),
        Figure("seconds", 0.2, "s", goal=at_most(0.3)),
        Figure("bytes", 3.0, "MiB"),
    ]
    record(path, figures[0])
    record(path, *figures[1:])
    assert read(path) == figures


def test_without_a_file_nothing_is_recorded(tmp_path: Path) -> None:
    record(None, Figure("x", 1, "s"))
    assert read(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (Figure("x", 0.3, "s", goal=at_most(0.3)), "met"),
        (Figure("x", 0.6, "s", goal=at_most(0.3)), "missed by 100%"),
        (Figure("x", 570, "/s", goal=at_least(600)), "missed by 5%"),
        (Figure("x", 600, "/s", goal=at_least(600)), "met"),
        (Figure("x", 90, "s", goal=at_most(1)), "missed, 90 times the bound"),
        (Figure("x", 1, "errors", goal=at_most(0)), "missed"),
        (compared("x", 0.19, "s", 0.2, goal=at_least(0.95, "ratio")), "met"),
        (compared("x", 0.1, "s", 0.2, goal=at_least(0.95, "ratio")), "missed by 47%"),
        (Figure("x", 1, "s", goal=at_most(2, "ratio")), ""),
        (Figure("x", 1, "s"), ""),
    ],
)
def test_a_verdict_says_by_how_much_a_goal_was_missed(figure: Figure, said: str) -> None:
    assert verdict(figure) == said


def test_a_yardstick_of_zero_leaves_no_ratio_and_no_verdict() -> None:
    figure = compared("x", 1, "s", 0, goal=at_most(2, "ratio"))
    assert figure.ratio is None
    assert is_met(figure) is None
