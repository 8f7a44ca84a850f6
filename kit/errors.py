"""The root of errors that carry their own HTTP status and gRPC code. Services define their own classes."""

from typing import Any, ClassVar

from pydantic import BaseModel


class ServiceError(Exception):
    """An error as services answer it: a class for the kind, a text for the case at hand, and further fields."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    body: ClassVar[type[BaseModel]]
    """What `to_body` makes, as a schema. The root of a tree of errors sets it."""
    retry_after_s: int | None = None
    """When to ask again, in seconds; None if asking again changes nothing. Usually the same for all of a class."""

    def __init__(self, detail: str | None = None, **fields: Any) -> None:
        """`detail` replaces the default message, which is the class's docstring. Fields that are None are left out."""
        self.detail = detail or " ".join((type(self).__doc__ or "").split())
        self.fields = {name: value for name, value in fields.items() if value is not None}
        super().__init__(self.detail)

    def to_body(self) -> dict[str, Any]:
        """The JSON body that every service answers with."""
        return {**self.fields, "error": type(self).__name__, "detail": self.detail}
