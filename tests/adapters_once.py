"""What judges parameters and bodies is made once per process of the tests, not once per app: each test has its own.

A server has one app for as long as it runs. Making the adapters of its routes is most of what an app takes to make.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo


@contextmanager
def adapters_made_once() -> Iterator[None]:
    """Let the apps that are made while the block is open share their adapters, which nothing changes."""
    made: dict[tuple[object, ...], TypeAdapter[Any]] = {}

    def adapter(kind: Any, *, config: Any = None) -> TypeAdapter[Any]:
        key = (kind.__origin__, *map(_meaning, kind.__metadata__), repr(config))
        # An address is another function's once this one is gone, as those are that an app makes for itself.
        if any(" at 0x" in str(part) for part in key):
            return TypeAdapter(kind, config=config)
        return made.get(key) or made.setdefault(key, TypeAdapter(kind, config=config))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastapi._compat.v2.TypeAdapter", adapter)
        yield


def _meaning(metadata: object) -> str:
    return repr(metadata._attributes_set) if isinstance(metadata, FieldInfo) else repr(metadata)
