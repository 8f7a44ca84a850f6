"""Takes the pictures of the documentation from the running thing: `make pictures`.

Terminals become SVG through rich, pages PNG through Chromium, and diagrams SVG through Graphviz.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.browser import open_page
from tests.e2e.systems import System, standalone_system
from tests.terminal import run_in_terminal

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 100
# rich fetches its font from another host; any font of equal widths does.
_FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def draw_diagrams() -> None:
    """Each `.dot` as an SVG beside it."""
    for source in sorted(PICTURES.glob("*.dot")):
        subprocess.run(["dot", "-Tsvg", source, "-o", source.with_suffix(".svg")], check=True)


def draw_terminal(target: Path, title: str, lines: list[tuple[list[str], str]]) -> None:
    """A terminal in which commands were run, each with what it left on the screen."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for command, shown in lines:
            console.print(Text(f"$ {' '.join(command)}", style="bold"))
            console.print(Text.from_ansi(shown))
        drawn = console.export_svg(title=title, unique_id=target.stem)
    target.write_text(_FONT_FACES.sub("", drawn), encoding="utf-8")


def take_terminal(system: System, home: Path) -> None:
    """The way from a folder to a result with `infer`."""
    environment = {"INFERENCE_SERVER_URL": system.url, "HOME": str(home)}
    commands = [
        ["models", "add", "process:count.py", "wordcount", "--archive-folder", str(ROOT / "examples/wordcount")],
        ["submit", "wordcount", str(ROOT / "README.md"), "-o", str(home / "counts"), "--extract"],
        ["status", "@last"],
        ["history", "@last"],
    ]
    lines = []
    for command in commands:
        shown = run_in_terminal(command, environment)
        assert shown.code == 0, shown.text
        texts = [
            text.replace(f"{ROOT}/", "").replace(f"{home}/", "") for text in (" ".join(command), _settled(shown.raw))
        ]
        lines.append((["infer", texts[0]], texts[1]))
    draw_terminal(PICTURES / "terminal.svg", "infer", lines)


def _settled(raw: str) -> str:
    """What stays of lines that were written over, as a bar is."""
    kept = re.sub(r"\x1b\[\?25[lh]|\x1b\[[0-9]*[KAJ]", "", raw.replace("\r\n", "\n"))
    return "\n".join(line.rpartition("\r")[2] for line in kept.rstrip().split("\n"))


def take_page(system: System) -> None:
    """`/docs`, as it opens."""
    with open_page(f"{system.url}/docs") as page:
        page.set_viewport_size({"width": 1100, "height": 900})
        page.locator(".opblock").first.wait_for()
        page.screenshot(path=PICTURES / "docs.png")


def main() -> int:
    """Returns the exit code."""
    draw_diagrams()
    with tempfile.TemporaryDirectory() as folder, standalone_system(Path(folder), engine="process") as system:
        home = Path(folder) / "home"
        home.mkdir()
        take_terminal(system, home)
        take_page(system)
    return 0


if __name__ == "__main__":
    sys.exit(main())
