"""How a submission over a quota is answered: which quota, its limit, what is used, and what to do."""

from contract.errors import QuotaExceeded
from contract.quotas import Quota


def refuse(quota: Quota, limit: int, used: int, said: str, retry_after_s: int | None = None) -> QuotaExceeded:
    """The error; `retry_after_s` only where time alone makes room."""
    detail = f"quota {quota}: {said}. `infer quota` shows them all"
    return QuotaExceeded(detail, retry_after_s=retry_after_s, quota=quota, limit=limit, used=used)
