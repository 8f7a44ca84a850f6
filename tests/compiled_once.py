"""SQL is compiled once per process of the tests, not once per engine: each test has an engine of its own.

A server has one engine for as long as it runs, and compiles nothing twice either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

_STATEMENTS = 2000
"""More than the product has, on both kinds of databases."""


@contextmanager
def compiled_once() -> Iterator[None]:
    """Let the engines that are made while the block is open share what they compiled."""
    cache = LRUCache[Any, Any](_STATEMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "private_api.database.create_engine", partial(create_engine, execution_options={"compiled_cache": cache})
        )
        # Part of a statement's key; by itself each engine's is another one.
        patch.setattr(DefaultDialect, "__hash__", lambda dialect: hash(type(dialect)))
        patch.setattr(DefaultDialect, "__eq__", _speaks_the_same)
        yield


def _speaks_the_same(one: DefaultDialect, other: object) -> bool:
    return type(one) is type(other) and one.server_version_info == other.server_version_info
