"""Commands and programs out of the documentation's own text: what a test runs is what a reader pastes.

A command is a line of an indented block, or of a fence without a language or with `sh`. A section is what follows a
heading, up to the next heading of any level.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
_SHELL = ("", "sh")


@dataclass
class Section:
    """What stands below one heading."""

    page: str
    title: str
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """Language and text of each block, in their order; the language of indented ones is ``."""

    @property
    def shell(self) -> list[str]:
        """The blocks for a shell, each with its lines."""
        return [text for language, text in self.blocks if language in _SHELL]

    @property
    def commands(self) -> list[str]:
        """The lines of all blocks for a shell."""
        return [line for block in self.shell for line in block.splitlines() if line]

    @property
    def programs(self) -> list[str]:
        """The Python programs."""
        return [text for language, text in self.blocks if language == "python"]

    def file(self, language: str) -> str:
        """The one block in this language."""
        (found,) = [text for of, text in self.blocks if of == language]
        return found


def sections(page: str) -> Iterator[Section]:
    """The sections of a page, in their order; `page` is relative to the repository."""
    tokens = MarkdownIt().enable("table").parse((ROOT / page).read_text(encoding="utf-8"))
    section = Section(page, "")
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            yield section
            section = Section(page, tokens[number + 1].content)
        elif token.type in ("code_block", "fence"):
            section.blocks.append((token.info, token.content))
    yield section


def section(page: str, title: str) -> Section:
    """One section, by its heading as it is written."""
    (found,) = [each for each in sections(page) if each.title == title]
    return found
