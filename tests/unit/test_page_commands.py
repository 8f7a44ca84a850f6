"""Every command of every page is run by a test, or it is said once why none can."""

import pytest

from tests.doc_pages import ROOT, sections
from tests.page_commands import NOT_RUN, RUN_BY
from tests.unit.test_links import pages

WITH_COMMANDS = [
    (section.page, section.title)
    for page in pages()
    if "template" not in page.parts
    for section in sections(str(page.relative_to(ROOT)))
    if section.commands
]
LISTED = [*RUN_BY, *NOT_RUN]


def place(page: str, title: str) -> tuple[str, str]:
    """Where a section is listed: by its title, else with its whole page."""
    return (page, title) if (page, title) in LISTED else (page, "*")


def test_every_section_with_commands_is_listed() -> None:
    assert [each for each in WITH_COMMANDS if place(*each) not in LISTED] == []


def test_nothing_is_listed_twice_or_in_vain() -> None:
    assert set(RUN_BY) & set(NOT_RUN) == set()
    assert set(LISTED) - {place(*each) for each in WITH_COMMANDS} == set()


@pytest.mark.parametrize(("page", "title"), RUN_BY)
def test_the_test_that_is_named_reads_the_page(page: str, title: str) -> None:
    source = (ROOT / RUN_BY[page, title]).read_text(encoding="utf-8")
    assert page.removeprefix("docs/") in source or page.rpartition("/")[2] in source


@pytest.mark.parametrize(("page", "title"), NOT_RUN)
def test_a_command_that_no_test_runs_has_a_reason(page: str, title: str) -> None:
    assert len(NOT_RUN[page, title]) > 20
