"""The README's own commands and programs, taken from its text: what a test runs is what a reader pastes."""

import re

from tests.e2e.compose import ROOT


def section(title: str) -> str:
    """The text below a heading, up to the next one of any level."""
    text = (ROOT / "README.md").read_text()
    (found,) = re.findall(rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ [A-Z]|\Z)", text, re.DOTALL | re.MULTILINE)
    return str(found)


def commands(title: str) -> list[str]:
    """The lines for a shell in a section: those that are indented by four, outside of programs."""
    prose = re.sub(r"^```.*?^```$", "", section(title), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^ {4}(.+)$", prose, re.MULTILINE)


def programs(title: str) -> list[str]:
    """The Python programs of a section."""
    return re.findall(r"^```python\n(.*?)^```$", section(title), re.DOTALL | re.MULTILINE)
