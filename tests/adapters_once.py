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
    made: dict[tuple[object, ...], tuple[Any, TypeAdapter[Any]]] = {}

    def adapter(kind: Any, *, config: Any = None) -> TypeAdapter[Any]:
        key = (kind.__origin__, *map(_meaning, kind.__metadata__), repr(config))
        # What was made of `kind` is kept with it: the addresses of its functions, which are in the key, stay its own.
        found = made.get(key) or made.setdefault(key, (kind, TypeAdapter(kind, config=config)))
        return found[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastapi._compat.v2.TypeAdapter", adapter)
        yield


def _meaning(metadata: object) -> str:
    return repr(metadata._attributes_set) if isinstance(metadata, FieldInfo) else repr(metadata)
