"""What clients and operators look up stands in one place, and that place is complete."""

import re
from pathlib import Path

import pytest

from contract.errors import error_classes
from contract.statuses import Reason
from tests.unit.test_links import ROOT, pages

ANSWERS = ROOT / "docs/reference/answers.md"
POLL_CODES = ("550", "551", "552", "553", "554")


def first_cells(page: Path) -> list[str]:
    return re.findall(r"^\| (.*?) \|", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_reason_has_its_row() -> None:
    cells = first_cells(ANSWERS)
    assert [cell for cell in cells if cell.strip("`") in set(Reason)] == [f"`{reason}`" for reason in Reason]


def test_every_answer_of_a_poll_has_its_row_under_the_name_that_its_body_has() -> None:
    rows = {cell[:3]: cell for cell in first_cells(ANSWERS) if cell[:3] in POLL_CODES}
    names = {str(kind.http_status): kind.__name__ for kind in error_classes() if str(kind.http_status) in POLL_CODES}
    assert rows == {code: f"{code} `{name}`" for code, name in names.items()}


@pytest.mark.parametrize("row", ["`out_of_memory`", "`crashed_repeatedly`", "551", "552 `TaskFailed`"])
def test_no_other_page_has_such_a_row(row: str) -> None:
    having = [page for page in pages() if any(cell == row or cell.startswith(f"{row} ") for cell in first_cells(page))]
    assert having == [ANSWERS]
