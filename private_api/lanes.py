"""Connections and threads that one kind of call has for itself."""

from collections.abc import Callable
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from private_api.database import Database

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Lane:
    """Runs rules in threads, each of which finds a free connection; whoever runs elsewhere takes neither."""

    def __init__(self, url: str, *, width: int, before_write: Callable[[], None]) -> None:
        """`width` is how many calls run at once; others wait for their turn. `before_write` is as `Database` has it."""
        self._database = Database(url, pool_size=width, before_write=before_write)
        self._limiter = CapacityLimiter(width)

    async def run(
        self,
        rule: Callable[Concatenate[Database, _Parameters], _Result],
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> _Result:
        """The result of the rule over the lane's database. Raises what the rule raises."""
        return await to_thread.run_sync(partial(rule, self._database, *args, **kwargs), limiter=self._limiter)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
