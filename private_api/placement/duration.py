"""How long a task will take, by how long earlier ones of its model took for inputs of which size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

_ALIKE = 0.1
"""Inputs whose sizes differ by no more than this part say nothing of what size costs."""


@dataclass(frozen=True)
class Run:
    """A task that finished."""

    seconds: float
    input_bytes: int


def usual_seconds(runs: Sequence[Run]) -> float:
    """The median of the durations; there must be at least one."""
    return median(run.seconds for run in runs)


def expect_seconds(runs: Sequence[Run], input_bytes: int) -> float:
    """The duration to expect for an input of this size, no less than the shortest there was.

    The line through the runs is that of Theil (1950) and Sen (1968): its slope is the median of those between all
    pairs, which a few runs that took unusually long do not bend. Where larger inputs take no longer, and where all are
    of about one size, the line is the median of the durations. For an input that is larger than twice the largest
    before it, the line says nothing; it is taken for one of that size.
    """
    slopes = [
        (one.seconds - other.seconds) / (one.input_bytes - other.input_bytes)
        for one, other in combinations(runs, 2)
        if abs(one.input_bytes - other.input_bytes) > _ALIKE * max(one.input_bytes, other.input_bytes)
    ]
    slope = max(0.0, median(slopes)) if slopes else 0.0
    start = median(run.seconds - slope * run.input_bytes for run in runs)
    judged_bytes = min(input_bytes, 2 * max(run.input_bytes for run in runs))
    return max(start + slope * judged_bytes, min(run.seconds for run in runs))
