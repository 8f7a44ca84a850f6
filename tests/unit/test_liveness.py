"""When a replica that was ready is silent, back, or gone: a table over probes, without a clock."""

from job_consumer.replicas.liveness import Liveness, Verdict

NOTHING, SILENT, BACK, GONE = Verdict.NOTHING, Verdict.SILENT, Verdict.BACK, Verdict.GONE
LIMIT_S = 8.0


def judged(*probes: tuple[float, bool, int | None]) -> list[Verdict]:
    """The verdict after each probe: its time, whether the answer was good, and the calls that are known to be open."""
    liveness = Liveness(LIMIT_S)
    return [liveness.judge(is_ready, now, in_flight) for now, is_ready, in_flight in probes]


def test_it_is_silent_after_the_limit_and_not_before() -> None:
    assert judged((0, True, None), (2, False, None), (9, False, None), (10, False, None)) == [
        NOTHING,
        NOTHING,
        NOTHING,
        SILENT,
    ]


def test_one_good_answer_begins_anew() -> None:
    assert judged((0, False, None), (7, True, None), (9, False, None), (16, False, None)) == [NOTHING] * 4


def test_a_silent_one_that_answers_is_back_once() -> None:
    assert judged((0, False, None), (8, False, None), (30, True, 0), (31, True, None)) == [
        NOTHING,
        SILENT,
        BACK,
        NOTHING,
    ]


def test_while_it_computes_it_is_never_gone() -> None:
    """A call is open on it, or nobody knows whether one is."""
    silent = [(8.0 + number, False, 1 if number % 2 else None) for number in range(100)]
    assert judged((0, False, None), *silent) == [NOTHING, *[SILENT] * 100]


def test_it_is_gone_once_it_was_silent_without_a_call_for_the_limit_again() -> None:
    assert judged((0, False, None), (8, False, None), (20, False, 1), (30, False, 0), (37, False, 0)) == [
        NOTHING,
        *[SILENT] * 4,
    ]
    idle = [(30, False, 0), (34, False, 1), (36, False, 0), (43, False, 0), (44, False, 0)]
    assert judged((0, False, None), (8, False, None), *idle)[-2:] == [SILENT, GONE]


def test_it_is_asked_a_few_times_within_the_limit_and_not_all_the_time() -> None:
    liveness = Liveness(LIMIT_S)
    assert liveness.is_due(0)
    liveness.judge(True, 0, None)
    assert not liveness.is_due(1.9)
    assert liveness.is_due(2)
    patient = Liveness(3600)
    patient.judge(True, 0, None)
    assert (patient.is_due(9.9), patient.is_due(10)) == (False, True)


def test_what_could_not_be_asked_counts_for_nothing() -> None:
    liveness = Liveness(LIMIT_S)
    liveness.judge(False, 0, None)
    liveness.forgive(7)
    assert not liveness.is_due(8)
    assert liveness.judge(False, 9, None) is NOTHING


def test_without_a_limit_nothing_is_asked() -> None:
    assert not Liveness(None).is_due(1e9)
