"""`docs/architecture.md` answers its questions with files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
QUESTIONS = 24


def rows(title: str) -> list[str]:
    """The rows of the table below a heading, without its head."""
    text = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("|")][2:]


def test_every_question_is_answered_by_files_that_exist() -> None:
    questions = rows("Which file answers")
    assert len(questions) == QUESTIONS
    for question in questions:
        files = re.findall(r"`([\w/]+\.py)`", question)
        assert files, question
        assert [name for name in files if not (ROOT / name).is_file()] == []


def test_every_step_happens_in_files_that_exist() -> None:
    steps = [step for subject in ("task", "replica", "call") for step in rows(f"One {subject}, step by step")]
    for step in (step for step in steps if re.match(r"\| \d+ ", step)):
        place = step.split("|")[2]
        first, *others = re.findall(r"`([\w/]+(?:\.py|/))`", place) or [""]
        # Further files of a row are named from the same package.
        package = first.split("/")[0]
        paths = [ROOT / first, *(ROOT / package / name for name in others)]
        assert [path for path in paths if not path.exists()] == [], step
