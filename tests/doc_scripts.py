"""Scripts that pages show: a comment names the file, the block below it has its text.

`python -m tests.doc_scripts` writes the blocks again.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- (?P<path>\S+\.py) -->\n```python\n(?P<text>.*?)```\n", re.DOTALL)


def shown_scripts(page: Path) -> dict[str, str]:
    """The text of each script on a page, by the script's path."""
    return {match["path"]: match["text"] for match in BLOCK.finditer(page.read_text(encoding="utf-8"))}


def refresh(page: Path) -> None:
    """Write the current text of the scripts into a page."""

    def block(match: re.Match[str]) -> str:
        path = match["path"]
        return f"<!-- {path} -->\n```python\n{(ROOT / path).read_text(encoding='utf-8')}```\n"

    page.write_text(BLOCK.sub(block, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for name in (ROOT / "docs").rglob("*.md"):
        refresh(name)
