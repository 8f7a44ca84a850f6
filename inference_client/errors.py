"""What goes wrong on the user's side of the wire; the server's own errors are the classes of `contract.errors`.

ClientError
├── UnusableInput
├── DamagedDownload
├── WaitTimeout
├── CallFailed
├── DeploymentFailing
└── Interrupted
"""

from typing import Any


class ClientError(Exception):
    """Base of this side's errors. `fields` are further JSON members, as on the server's errors."""

    def __init__(self, detail: str, **fields: Any) -> None:
        self.detail = detail
        self.fields = fields
        super().__init__(detail)

    def to_body(self) -> dict[str, Any]:
        """The same shape as the server's error bodies."""
        return {**self.fields, "error": type(self).__name__, "detail": self.detail}


class UnusableInput(ClientError):
    """What the caller gave (a path, a URL, a setting) cannot be used; nothing was sent, or the server kept nothing."""


class DamagedDownload(ClientError):
    """What arrived is not what the server stored; it was thrown away."""


class WaitTimeout(ClientError):
    """The task has not ended, or the deployment is not ready, in the time the caller gave; it goes on."""


class DeploymentFailing(ClientError):
    """The deployment's replicas end by themselves; the server goes on trying."""


class CallFailed(ClientError):
    """A live call ended with another gRPC status than OK; `code` is its name, such as NOT_FOUND."""

    def __init__(self, code: str, details: str, **fields: Any) -> None:
        super().__init__(details, code=code, **fields)
        self.code = code


class Interrupted(ClientError):
    """The user pressed Ctrl-C."""
