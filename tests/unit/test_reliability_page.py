"""`docs/reliability.md` names tests and failpoints that exist, and leaves out no failpoint."""

import re
from pathlib import Path

from job_consumer.failpoints import Failpoint as ConsumerPoint
from private_api.failpoints import Failpoint as ApiPoint

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/reliability.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([a-z0-9]+/\w+\.py)::(\w+)`", PAGE)
    assert named
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"^def {name}\(", (TESTS / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_the_page_says_what_happens_at_every_failpoint_and_knows_no_other() -> None:
    table = PAGE.split("## What dies")[1].split("\n## ")[0]
    cells = [line.split("|")[4] for line in table.splitlines() if line.count("|") == 5]
    listed = re.findall(r"`([a-z]+\.[a-z]+)`", "\n".join(cells))
    assert sorted(listed) == sorted([*ApiPoint, *ConsumerPoint])
