"""How requests of owners are counted, by a clock that the test turns."""

import pytest

from contract.access import ANONYMOUS, Caller
from contract.errors import QuotaExceeded
from contract.quotas import Quota
from private_api.quotas.limits import NO_LIMITS
from private_api.quotas.requests import RequestCounts

ADA, BOB = Caller("ada", frozenset()), Caller("bob", frozenset())
TWO = {**NO_LIMITS, Quota.REQUESTS: 2}


def test_a_second_has_as_many_requests_as_the_limit_and_the_next_one_as_many_again() -> None:
    now = 100.9
    counts = RequestCounts(lambda: now)
    for _ in range(3):
        counts.enter(ADA, TWO)
        counts.enter(ADA, TWO)
        with pytest.raises(QuotaExceeded) as refused:
            counts.enter(ADA, TWO)
        assert refused.value.fields == {"quota": "requests", "limit": 2, "used": 2}
        assert (refused.value.retry_after_s, counts.count("ada")) == (1, 2)
        counts.enter(BOB, TWO)
        now += 1
    assert counts.count("ada") == 0


def test_whoever_has_no_owner_or_no_limit_is_never_refused() -> None:
    counts = RequestCounts(lambda: 7.0)
    for _ in range(100):
        counts.enter(ANONYMOUS, TWO)
        counts.enter(ADA, NO_LIMITS)
    assert counts.count("ada") == 100
