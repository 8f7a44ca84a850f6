"""The guards that `make mutants` removes are where it looks for them, and the tests that must notice exist."""

import re

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)
def test_a_guard_stands_once_where_it_is_removed(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.guarded) == 1
    path, _, test = mutant.test.partition("::")
    assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE)
