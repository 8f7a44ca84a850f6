"""Which limits hold for whom: the key's own, else the server's. Callers without a key have none."""

import json
from collections.abc import Mapping

from contract.access import Caller
from contract.quotas import Quota

Limits = Mapping[Quota, int | None]
"""Every quota's limit; None for no limit."""

NO_LIMITS: Limits = dict.fromkeys(Quota)


def limits_of(caller: Caller, defaults: Limits) -> Limits:
    """What limits the caller's submissions, at a server with these defaults."""
    return NO_LIMITS if caller.owner is None else {**defaults, **caller.quotas}


def exceeding(wanted: Limits, most: Limits) -> list[Quota]:
    """The quotas of which `wanted` allows more than `most`."""
    return [quota for quota in Quota if _is_more(wanted[quota], most[quota])]


def parse_quotas(text: str | None) -> dict[Quota, int | None]:
    """A key's own limits, as its row has them."""
    stored = json.loads(text or "{}")
    return {quota: stored[quota] for quota in Quota if quota in stored}


def dump_quotas(quotas: Limits) -> str | None:
    """The same as a row has them. NULL: none."""
    return json.dumps(quotas) if quotas else None


def _is_more(wanted: int | None, most: int | None) -> bool:
    return most is not None and (wanted is None or wanted > most)
