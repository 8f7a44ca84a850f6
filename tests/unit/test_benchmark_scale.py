"""The model of docs/scale.md: what it adds up, what is full first, and that the page shows what it computes."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale import RECORDED, recorded, with_tables
from benchmarks.scale_model import FULL, Costs, Fleet, first_full, kept_tib, most_per_day, parts, rows_gib
from tests.doc_pages import ROOT, section

COSTS = Costs(
    private_task_s=0.1,
    public_task_s=0.02,
    database_task_s=0.05,
    commits_per_task=9,
    rows_per_task_kib=2,
    private_idle_cores=0.05,
    database_idle_cores=0.01,
    private_call_s=0.01,
    public_call_s=0.004,
    database_call_s=0.002,
    private_mib_s=0.001,
    public_mib_s=0.002,
    gap_s=1,
    sync_s=0.001,
    copy_mib_s=400,
    forgets_s=144,
)
FLEET = Fleet("some", run_s=59, input_mib=100, output_mib=20, gpus=60)


def use(name: str, fleet: Fleet = FLEET, costs: Costs = COSTS) -> float:
    return {part.name: part.use for part in parts(fleet, costs)}[name]


def test_busy_gpus_make_tasks_as_fast_as_they_end() -> None:
    assert FLEET.rate(COSTS) == 1
    assert replace(FLEET, gpus=None, tasks_per_day=86_400).busy_gpus(COSTS) == 60


def test_each_part_is_asked_for_what_a_task_costs_it() -> None:
    # One task a second: 5.9 heartbeats and 1.967 polls for the 59 tasks that run, 120 MiB past the door.
    assert use("public API") == pytest.approx(0.02 + 59 / 30 * 0.004 + 120 * 0.002)
    assert use("private API") == pytest.approx(0.05 + 0.1 + (5.9 + 59 / 30) * 0.01 + 240 * 0.001)
    assert use("PostgreSQL, CPU") == pytest.approx((0.01 + 0.05 + (5.9 + 59 / 30) * 0.002) / 4)
    assert use("PostgreSQL, transactions") == pytest.approx((9 + 5.9) * 0.001)
    assert use("disk of the archives") == pytest.approx(240 / 400)
    assert use("janitor") == pytest.approx(1 / 144)


def test_twice_the_tasks_use_twice_as_much() -> None:
    twice = replace(FLEET, gpus=120)
    assert use("public API", twice) == pytest.approx(2 * use("public API"))
    assert use("private API", twice) == pytest.approx(2 * use("private API") - 0.05)


@pytest.mark.parametrize(
    ("dear", "name"),
    [
        ({"private_task_s": 1.0}, "private API"),
        ({"public_mib_s": 0.1}, "public API"),
        ({"copy_mib_s": 10.0}, "disk of the archives"),
        ({"sync_s": 1.0}, "PostgreSQL, transactions"),
        ({"forgets_s": 0.1}, "janitor"),
    ],
)
def test_the_part_of_which_most_is_in_use_is_full_first(dear: dict[str, float], name: str) -> None:
    assert first_full(FLEET, replace(COSTS, **dear)).name == name


def test_at_its_limit_the_first_part_is_full() -> None:
    bare = replace(COSTS, private_idle_cores=0)
    limit = replace(FLEET, gpus=None, tasks_per_day=most_per_day(FLEET, bare))
    assert first_full(limit, bare).use == pytest.approx(FULL)


def test_a_part_that_is_overfull_says_how_many_would_do() -> None:
    crowd = first_full(replace(FLEET, gpus=600), replace(COSTS, private_task_s=1.0))
    assert crowd.is_full
    assert crowd.asked / (crowd.has * crowd.needed) <= FULL < crowd.asked / (crowd.has * (crowd.needed - 1))


def test_what_is_kept_grows_with_days_and_tasks() -> None:
    assert kept_tib(FLEET, COSTS, days=30) == pytest.approx(86_400 * 30 * 120 / 1024**2)
    assert rows_gib(FLEET, COSTS, days=365) == pytest.approx(86_400 * 365 * 2 / 1024**2)


def test_a_page_without_its_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="lacks"):
        with_tables("# Scale\n", COSTS)


def test_the_page_shows_what_its_first_command_computes() -> None:
    assert section("docs/scale.md", "Try it").commands[0] == ".venv/bin/python -m benchmarks.scale"
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    assert with_tables(page, recorded(RECORDED)) == page, (
        "run .venv/bin/python -m benchmarks.scale --page docs/scale.md"
    )


def test_results_without_costs_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        recorded(tmp_path)
