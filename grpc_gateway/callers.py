"""Who calls, as handlers see it."""

from dataclasses import dataclass

from contract.access import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Made from a key or a replica's token that was checked, or for a call without one; then it has no owner."""

    owner: str | None
    scopes: frozenset[str]

    @property
    def may_submit(self) -> bool:
        """Whether the caller may have a model compute."""
        return not self.scopes.isdisjoint(_SUBMITTING)


_SUBMITTING = frozenset({Scope.SUBMIT, Scope.ADMIN, Scope.OPERATE})
ANONYMOUS = Caller(None, frozenset({Scope.SUBMIT}))
"""Who gives no key, where none is required."""
