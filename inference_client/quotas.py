"""Quotas as people write them for a key: `queued=10`, `stored=50GiB`, `running=off`."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from inference_client.errors import UnusableInput
from inference_client.statuses import Quota
from inference_client.units import format_size, parse_size

Name = TypeVar("Name", bound=str)
OFF = "off"
_BYTES = (Quota.STORED, Quota.DAILY)


def parse_quotas(texts: Iterable[str]) -> dict[Quota, int | None]:
    """Limits by quota, None for no limit. Raises `UnusableInput`."""
    quotas: dict[Quota, int | None] = {}
    for text in texts:
        name, _, limit = text.partition("=")
        quota = next((each for each in Quota if each == name.strip()), None)
        if quota is None or not limit.strip():
            raise UnusableInput(
                f"{text!r} is no quota: write {', '.join(Quota)}, with = and a limit, as in queued=10, stored=50GiB or "
                f"running={OFF}"
            )
        if quota in quotas:
            raise UnusableInput(f"the quota {quota} was given twice")
        quotas[quota] = _parse_limit(quota, limit.strip())
    return quotas


def format_quotas(quotas: Mapping[Name, int | None]) -> str:
    """The same as they are written, or a dash for none."""
    said = {quota: OFF if limit is None else format_amount(quota, limit) for quota, limit in quotas.items()}
    return " ".join(f"{quota}={limit.replace(' ', '')}" for quota, limit in said.items()) or "-"


def format_amount(quota: str, count: int) -> str:
    """What a quota counts, for people."""
    return format_size(count) if quota in _BYTES else str(count)


def _parse_limit(quota: Quota, text: str) -> int | None:
    if text == OFF:
        return None
    limit = parse_size(text) if quota in _BYTES else int(text) if text.isdecimal() else 0
    if limit < 1:
        raise UnusableInput(f"{quota}={text}: a limit is a number from 1 up, or {OFF} for none")
    return limit
