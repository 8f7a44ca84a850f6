"""Which replica gets a call, as tables: no channel, no network."""

from collections.abc import Mapping, Sequence

import pytest

from grpc_gateway.admission import CallClass
from grpc_gateway.replica_choice import Candidate, choose

NOW = 100.0
INFER, STREAM = CallClass.INFER, CallClass.STREAM


def candidate(uid: str, *, calls: int = 0, streams: int = 0, down_until: float = 0.0) -> Candidate:
    made = Candidate(uid)
    made.open = {INFER: calls, STREAM: streams}
    made.down_until = down_until
    return made


def choice(
    replicas: Sequence[Candidate],
    call_class: CallClass = INFER,
    *,
    most: int = 2,
    affinity: str = "",
    avoid: Sequence[str] = (),
) -> str | None:
    """The uid of the replica that is chosen."""
    avoided = [replica for replica in replicas if replica.uid in avoid]
    chosen = choose(replicas, call_class, most, affinity=affinity, avoid=avoided, now=NOW)
    return chosen.uid if chosen else None


A_FULL = {"calls": 2}
DOWN = {"down_until": NOW + 0.1}


@pytest.mark.parametrize(
    ("states", "call_class", "avoid", "chosen"),
    [
        ({}, INFER, "", None),
        # Room is what is below the limit; a replica at it has none.
        ({"a": {"calls": 1}}, INFER, "", "a"),
        ({"a": A_FULL}, INFER, "", None),
        ({"a": {"calls": 3}}, INFER, "", None),
        ({"a": A_FULL, "b": {"calls": 2}}, INFER, "", None),
        # A replica at the limit gets nothing even where it has the least in flight.
        ({"a": A_FULL, "b": {"calls": 1, "streams": 9}}, INFER, "", "b"),
        ({"a": {"streams": 2}, "b": {"calls": 9, "streams": 1}}, STREAM, "", "b"),
        # Each class has its own room.
        ({"a": A_FULL}, STREAM, "", "a"),
        ({"a": {"streams": 2}}, INFER, "", "a"),
        # Of two the one with less in flight, calls and streams together.
        ({"a": {"calls": 1}, "b": {}}, INFER, "", "b"),
        ({"a": {"calls": 0, "streams": 5}, "b": {"calls": 1}}, INFER, "", "b"),
        # One that was tried is not tried again.
        ({"a": {}}, INFER, "a", None),
        ({"a": {}, "b": {"calls": 1}}, INFER, "a", "b"),
        ({"a": {}, "b": {}}, INFER, "ab", None),
        # One that could not be reached goes last, and is better than none.
        ({"a": DOWN, "b": {"calls": 1}}, INFER, "", "b"),
        ({"a": DOWN}, INFER, "", "a"),
        ({"a": DOWN, "b": A_FULL}, INFER, "", "a"),
        ({"a": DOWN, "b": {**DOWN, "calls": 1}}, INFER, "", "a"),
        ({"a": {"down_until": NOW}, "b": {"calls": 1}}, INFER, "", "a"),
    ],
)
def test_the_choice(
    states: Mapping[str, Mapping[str, float]], call_class: CallClass, avoid: str, chosen: str | None
) -> None:
    replicas = [candidate(uid, **state) for uid, state in states.items()]  # type: ignore[arg-type]
    assert choice(replicas, call_class, avoid=avoid) == chosen


def test_the_most_loaded_of_several_is_never_chosen() -> None:
    replicas = [candidate("a", calls=1), candidate("b", calls=2), candidate("c", calls=3)]
    assert {choice(replicas, most=9) for _ in range(200)} == {"a", "b"}


@pytest.mark.parametrize(
    ("affinity", "chosen"),
    # Every process of every version must agree on these.
    [("model-1", "b"), ("model-2", "a"), ("model-3", "a"), ("model-4", "a"), ("model-5", "a"), ("session-ä", "c")],
)
def test_an_affinity_leads_to_one_replica_however_loaded_it_is(affinity: str, chosen: str) -> None:
    replicas = [candidate(uid, calls=8 if uid == chosen else 0) for uid in "abc"]
    assert choice(replicas, most=9, affinity=affinity) == chosen
    assert choice(replicas[::-1], most=9, affinity=affinity) == chosen


def test_an_affinity_gives_way_where_its_replica_is_full_down_or_avoided() -> None:
    replicas = [candidate("a"), candidate("b"), candidate("c")]
    first = choice(replicas, affinity="m")
    rest = [replica for replica in replicas if replica.uid != first]
    second = choice(rest, affinity="m")
    assert first is not None
    assert choice(replicas, affinity="m", avoid=[first]) == second
    by_uid = {replica.uid: replica for replica in replicas}
    by_uid[first].down_until = NOW + 1
    assert choice(replicas, affinity="m") == second
    by_uid[first].down_until = 0
    by_uid[first].open[INFER] = 2
    assert choice(replicas, affinity="m") == second


def test_a_replica_that_leaves_moves_only_its_own_affinities() -> None:
    replicas = [candidate(uid) for uid in "abcd"]
    before = {f"m{number}": choice(replicas, affinity=f"m{number}") for number in range(100)}
    after = {affinity: choice(replicas[:3], affinity=affinity) for affinity in before}
    assert {affinity for affinity in before if before[affinity] != after[affinity]} == {
        affinity for affinity, uid in before.items() if uid == "d"
    }
