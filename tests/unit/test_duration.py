"""How long a task is expected to take, by the runs before it."""

import pytest

from private_api.placement.duration import Run, expect_seconds, usual_seconds

MIB = 1024**2
LINE = [Run(10 + size, size * MIB) for size in (10, 20, 40, 80)]


@pytest.mark.parametrize(("size", "seconds"), [(40, 50), (60, 70), (160, 170), (5, 20)])
def test_a_larger_input_takes_as_much_longer_as_those_before_it_did(size: int, seconds: float) -> None:
    assert expect_seconds(LINE, size * MIB) == pytest.approx(seconds)


def test_a_run_that_took_unusually_long_bends_nothing() -> None:
    assert expect_seconds([*LINE, Run(10_000, 30 * MIB)], 60 * MIB) == pytest.approx(70, rel=0.1)


def test_an_input_far_larger_than_any_before_is_not_guessed_at() -> None:
    assert expect_seconds(LINE, 10_000 * MIB) == pytest.approx(170)


@pytest.mark.parametrize(
    "runs",
    [
        [Run(30, MIB)],
        [Run(10, MIB), Run(30, MIB), Run(50, MIB)],
        # What differs by a few bytes is of one size.
        [Run(10, MIB), Run(30, MIB + 3), Run(50, MIB + 9)],
        # Larger ones were faster: their size is not what counts.
        [Run(50, MIB), Run(30, 2 * MIB), Run(10, 4 * MIB)],
    ],
)
def test_without_a_sign_that_size_counts_it_is_the_median(runs: list[Run]) -> None:
    assert expect_seconds(runs, 3 * MIB) == usual_seconds(runs) == 30
