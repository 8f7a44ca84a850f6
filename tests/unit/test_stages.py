"""One attempt of a consumer at a time is in each stage, and a delivery lets the next run start first."""

from threading import Event, Thread
from time import monotonic

import pytest

from job_consumer.engines import RunKey
from job_consumer.stages import Stage, Stages
from tests.waiting import PATIENCE_S

FIRST, SECOND = RunKey("a", 1), RunKey("b", 1)


class Over(Exception):
    """Ends a wait."""


def give_up() -> None:
    raise Over


def test_a_stage_is_taken_until_its_attempt_moves_on_or_leaves() -> None:
    stages = Stages()
    stages.enter(FIRST)
    stages.move(FIRST, Stage.RUNNING, give_up)
    stages.enter(SECOND)
    with pytest.raises(Over):
        stages.move(SECOND, Stage.RUNNING, give_up)
    assert (stages.has(Stage.PREPARING), stages.delivering()) == (True, set())
    stages.move(FIRST, Stage.DELIVERING, give_up)
    assert stages.delivering() == {FIRST}
    stages.move(SECOND, Stage.RUNNING, give_up)
    with pytest.raises(Over):
        stages.move(SECOND, Stage.DELIVERING, give_up)
    stages.leave(FIRST)
    stages.move(SECOND, Stage.DELIVERING, give_up)
    assert not stages.has(Stage.RUNNING)


def test_a_delivery_does_not_wait_for_a_run_that_waits_for_it() -> None:
    stages, third = Stages(), RunKey("c", 1)
    stages.move(FIRST, Stage.DELIVERING, give_up)
    stages.move(SECOND, Stage.RUNNING, give_up)
    stages.note_started(SECOND)
    with pytest.raises(Over):
        stages.move(third, Stage.RUNNING, give_up)
    # The second one has ended, and waits for the delivery of the first.
    began = monotonic()
    stages.let_start(PATIENCE_S)
    assert monotonic() - began < PATIENCE_S


@pytest.mark.parametrize("ends", [Stages.note_started, Stages.leave])
def test_a_delivery_waits_for_the_start_of_the_next_run_alone(ends: object) -> None:
    stages, is_over = Stages(), Event()
    # Nobody is about to start.
    stages.let_start(PATIENCE_S)
    stages.move(SECOND, Stage.RUNNING, give_up)

    def deliver() -> None:
        stages.let_start(PATIENCE_S)
        is_over.set()

    thread = Thread(target=deliver)
    thread.start()
    assert not is_over.wait(0.1)
    ends(stages, SECOND)  # type: ignore[operator]
    assert is_over.wait(PATIENCE_S)
    thread.join()
