"""Who asks, as the rules see it."""

from dataclasses import dataclass

from contract.access import Scope
from contract.errors import PermissionDenied


@dataclass(frozen=True)
class Caller:
    """Made from a key that was checked, or for a call without one; then it has no owner."""

    owner: str | None
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the caller has this scope."""
        return scope in self.scopes or (Scope.ADMIN in self.scopes and scope is not Scope.CONSUME)

    def require(self, scope: Scope, otherwise: str) -> None:
        """Raises `PermissionDenied` with the text `otherwise` unless the caller has this scope."""
        if not self.may(scope):
            raise PermissionDenied(otherwise)


ANONYMOUS = Caller(None, frozenset({Scope.SUBMIT}))
"""Who gives no key, where none is required."""
TOKEN_HOLDER = Caller(None, frozenset({Scope.CONSUME}))
"""A consumer that proves itself with the service token: it has no owner."""
