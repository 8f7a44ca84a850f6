"""How many replicas calls need."""

from datetime import UTC, datetime, timedelta

from contract.serving import ServingSpec
from private_api.deployments.limits import backoff
from private_api.placement.need import Need, assess_need, clamp

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SERVING = ServingSpec(port=1, replicas_max=5, target_in_flight=10, idle_timeout_s=60)


def before(replicas: int, age_s: float = 0) -> Need:
    return Need(replicas, NOW - timedelta(seconds=age_s))


def need(was: Need, *, in_flight: int = 0, called_s_ago: float | None = None, serving: ServingSpec = SERVING) -> Need:
    called_at = None if called_s_ago is None else NOW - timedelta(seconds=called_s_ago)
    return assess_need(was, serving, in_flight=in_flight, called_at=called_at, now=NOW)


def test_calls_need_a_replica_for_each_target() -> None:
    for in_flight, replicas in ((1, 1), (10, 1), (11, 2), (49, 5), (500, 5)):
        assert need(before(0), in_flight=in_flight) == Need(replicas, NOW)


def test_a_replica_that_answers_fewer_calls_than_the_target_counts_for_those() -> None:
    serving = SERVING.model_copy(update={"max_in_flight": 2})
    assert need(before(0), in_flight=6, serving=serving).replicas == 3


def test_one_call_in_the_idle_timeout_keeps_one_replica() -> None:
    assert need(before(0, 30), called_s_ago=20) == Need(1, NOW - timedelta(seconds=20))
    assert need(before(1, 30), called_s_ago=20) == Need(1, NOW - timedelta(seconds=20))
    assert need(before(1, 59), called_s_ago=59).replicas == 1
    assert need(before(1, 61), called_s_ago=61) == Need(0, NOW)


def test_fewer_are_kept_only_once_fewer_were_needed_for_the_idle_timeout() -> None:
    was = before(4, 59)
    assert need(was, in_flight=5, called_s_ago=0) == was
    assert need(before(4, 61), in_flight=15, called_s_ago=0) == Need(2, NOW)
    assert need(before(4, 61), called_s_ago=5) == Need(1, NOW)
    assert need(before(4, 61), called_s_ago=100) == Need(0, NOW)


def test_a_need_that_stays_is_renewed() -> None:
    assert need(before(2, 50), in_flight=15) == Need(2, NOW)


def test_a_call_of_before_the_last_decision_wants_nothing() -> None:
    was = before(0, 5)
    assert need(was, called_s_ago=10) == was


def test_the_description_bounds_the_need() -> None:
    serving = SERVING.model_copy(update={"replicas_min": 2, "replicas_max": 3})
    assert [clamp(Need(count, NOW), serving) for count in (0, 2, 3, 9)] == [2, 2, 3, 3]


def test_the_backoff_is_bounded_however_often_a_replica_failed() -> None:
    assert [backoff(failures).total_seconds() for failures in (1, 2, 9, 10, 10_000)] == [1, 2, 256, 300, 300]
