"""The one way in which tests wait: for a condition, up to a limit that protects from hanging and measures nothing."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 120.0
"""How long a machine that is busy with other things may take for anything that should happen at once."""
START_S = 300.0
"""The same for a whole stack to start, and for a task that others stand before."""
_POLL_S = 0.02
_Value = TypeVar("_Value")


def wait_until(
    condition: Callable[[], object], describe: str | Callable[[], str] = "", *, within_s: float = PATIENCE_S
) -> None:
    """Poll until the condition holds; after `within_s` seconds fail with the description."""
    ends_at = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends_at:
            text = describe if isinstance(describe, str) else describe()
            raise AssertionError(f"not within {within_s:g} s: {text}")
        time.sleep(_POLL_S)


def repeat_until_told(run: Callable[[], _Value], is_told: Callable[[_Value], bool]) -> _Value:
    """What a run gives that needs too much memory, once the Engine told so; of at most six runs.

    Docker 20.10 loses the notice of it now and then (of 60 runs beside many others, 3), and shows code 137 alone.
    """
    for _ in range(5):
        if is_told(ended := run()):
            return ended
    return run()


def check_for(seconds: float, condition: Callable[[], object], describe: str = "") -> None:
    """Poll for this long; fail as soon as the condition does not hold."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        assert condition(), f"no longer: {describe}"
        time.sleep(_POLL_S)


def wait_until_still(read: Callable[[], _Value], *, for_s: float = 0.5) -> _Value:
    """Read until the value has stayed the same for this long; returns it."""
    value, still_at = read(), time.monotonic() + for_s
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < still_at:
        assert time.monotonic() < ends_at, f"still changing after {PATIENCE_S:g} s: {value!r}"
        time.sleep(_POLL_S)
        if (now := read()) != value:
            value, still_at = now, time.monotonic() + for_s
    return value
