"""How many examples a property gets that takes minutes: `make test` draws a few of them, `make test-long` all."""

import pytest
from hypothesis import settings

FEW_OR_ALL = pytest.mark.parametrize(
    "share", [pytest.param(6, id="few"), pytest.param(1, id="all", marks=pytest.mark.long)]
)
"""What the number of the profile is divided by."""


def fewer(share: int) -> settings:
    """The profile's settings with a share of its examples."""
    return settings(max_examples=max(1, settings().max_examples // share))
