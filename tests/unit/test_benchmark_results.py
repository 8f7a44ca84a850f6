"""The table and the pictures of `make bench`, and what it picks."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import run as runner
from benchmarks.figures import Figure, at_least, compared
from benchmarks.results import JSON, TABLE, Result, number, pictures, read, table, write
from benchmarks.suite import ENTRIES, Entry, picked

RATES = [
    compared("posts", rate, "/s", 4 * rate, goal=at_least(0.3, "ratio"), along="clients", at=at)
    for at, rate in ((1, 40), (8, 90), (32, 120))
]
POSTS = Result(
    "posts", "python -m benchmarks.posts", "small", "2026-01-01 12:00", 12.3, 0.5, 1.9, {"cores": "2"}, "", RATES
)
ABSENT = replace(POSTS, name="grpc", problem="not run: no Docker | Compose", figures=[])


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_what_is_written_is_read_again_with_a_picture_of_each_curve(tmp_path: Path) -> None:
    write(tmp_path, [POSTS, ABSENT])
    assert read(tmp_path) == {"posts": POSTS, "grpc": ABSENT}
    assert {path.name for path in tmp_path.iterdir()} == {JSON, TABLE, "posts-1.svg"}
    assert "![posts: posts, by clients](posts-1.svg)" in (tmp_path / TABLE).read_text()


def test_pictures_of_results_that_are_gone_go_too(tmp_path: Path) -> None:
    write(tmp_path, [POSTS])
    write(tmp_path, [ABSENT])
    assert not list(tmp_path.glob("*.svg"))


def test_each_figure_is_a_row_and_so_is_what_did_not_run() -> None:
    head, line, *rows = table([POSTS, ABSENT]).splitlines()
    assert {len(cells(row)) for row in (head, line, *rows)} == {9}
    assert cells(rows[0]) == [
        "posts", "posts (clients: 1)", ">= 0.3 x", "160/s", "40/s", "0.25", "missed by 17%", "0.5, 1.9", "12",
    ]  # fmt: skip
    assert cells(rows[-1])[:7] == ["grpc", "", "", "", "", "", r"not run: no Docker \| Compose"]


def test_one_place_makes_no_curve() -> None:
    assert list(pictures(replace(POSTS, figures=RATES[:1]))) == []


def test_units_have_pictures_of_their_own() -> None:
    times = [Figure("p99", 3.0 * at, "ms", along="clients", at=at) for at in (1, 8)]
    assert [title for title, _ in pictures(replace(POSTS, figures=[*RATES, *times]))] == [
        "posts, by clients",
        "p99, by clients",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(1234.5, "/s", "1234/s"), (0.012345, "s", "0.0123 s"), (2, "", "2"), (99.96, "ms", "100 ms")],
)
def test_numbers_have_three_digits(value: float, unit: str, shown: str) -> None:
    assert number(value, unit) == shown


def test_benchmarks_are_picked_by_name_in_the_order_of_the_suite() -> None:
    assert [entry.name for entry in picked("janitor, starts")] == ["starts", "janitor"]
    assert picked("") == list(ENTRIES)
    with pytest.raises(ValueError, match="called strats"):
        picked("strats")


def test_names_are_used_once() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def test_a_benchmark_that_is_not_there_says_so() -> None:
    result = runner.run(Entry("none", "no_such_module"), "small", {})
    assert result.problem == "not run: there is no benchmarks/no_such_module.py"


def test_what_a_benchmark_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runner.machine.FACILITIES, "docker", lambda: "no Docker Engine answers")
    result = runner.run(Entry("starts", "starts", needs=("docker",)), "small", {})
    assert result.problem == "not run: no Docker Engine answers"


def test_a_benchmark_that_fails_says_its_last_words(capfd: pytest.CaptureFixture[str]) -> None:
    result = runner.run(Entry("figures", "starts", "--no-such-option"), "small", {})
    assert result.problem.startswith("failed, exit code 2: ")
    assert "--no-such-option" in result.problem
    assert "--no-such-option" in capfd.readouterr().err
