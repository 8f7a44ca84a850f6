"""The pages: every link leads somewhere, every page is reached from the README, and Python shown in them compiles."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def links(page: Path) -> Iterator[tuple[Path, str | None]]:
    """The files that a page links, with the heading inside; what is shown as code is no link."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for match in LINK.finditer(text):
        yield (page.parent / unquote(match[1])).resolve() if match[1] else page, match[2]


def listed(page: Path) -> Iterator[Path]:
    """The pages in a page's tables of contents, as the site shows them."""
    if not page.is_relative_to(ROOT / "docs"):
        return
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for entry in re.findall(r"^(?!:)(?:.*<)?([^\s<>]+)>?$", block, re.MULTILINE):
            yield from (path.resolve() for path in page.parent.glob(f"{entry}.md"))


def anchors(page: Path) -> set[str]:
    """The headings as links name them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    dead = [
        f"{target.name}#{anchor or ''}"
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert not dead


def test_every_page_is_reached_from_the_readme_by_links() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.is_dir():
            waiting += [path for path in page.glob("*.md") if path not in reached]
        elif page not in reached and page.suffix == ".md" and page.exists():
            reached.add(page)
            waiting += [*(target for target, _ in links(page)), *listed(page)]
    assert sorted(str(page.relative_to(ROOT)) for page in set(pages()) - reached) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_compiles(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        ast.parse(block)
