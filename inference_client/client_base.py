"""What every call of the client needs: the connection, its life, pages, and the reading of answers."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from inference_client.config import environment, load_config
from inference_client.connection import Connection
from inference_client.errors import InferenceError

PAGE_SIZE = 100

T = TypeVar("T")


class ClientBase:
    """Holds the connection to one server. A context manager: leaving it closes the connection."""

    _connection: Connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections to the server."""
        self._connection.close()

    @property
    def server(self) -> str:
        """The server's URL, without a password."""
        return self._connection.server

    @property
    def was_reached(self) -> bool:
        """Whether something at the server's address has taken a connection."""
        return self._connection.was_reached

    def _pages(
        self, path: str, item: type[T], key_of: Callable[[T], str], filters: Mapping[str, str | list[str]] | None = None
    ) -> Iterator[T]:
        after: str | None = None
        while True:
            params = {**(filters or {}), "limit": str(PAGE_SIZE)} | ({} if after is None else {"after": after})
            page: list[T] = self._parse(list[item], self._connection.call("GET", path, params=params, repeatable=True))  # type: ignore[valid-type]
            yield from page
            if len(page) < PAGE_SIZE:
                return
            after = key_of(page[-1])

    def _get(self, kind: type[T], path: str, params: Mapping[str, str | list[str]] | None = None) -> T:
        return self._parse(kind, self._connection.call("GET", path, params=params, repeatable=True))

    def _parse(self, kind: type[T], answer: bytes) -> T:
        try:
            return TypeAdapter(kind).validate_json(answer)
        except ValidationError as error:
            raise InferenceError(
                f"{self.server} answered what an InferenceServer of this version does not; is the URL right?"
            ) from error


def find_server(
    server: str | None, key: str | None, verify: bool | str | Path
) -> tuple[str, str | None, bool | str | Path]:
    """The three as given; without a server those that `infer` would use. Raises `UnusableInput` for a faulty file."""
    if server is not None:
        return server, key, verify
    config = load_config(environment())
    return config.server, key or config.key, config.ca if verify is True and config.ca else verify
