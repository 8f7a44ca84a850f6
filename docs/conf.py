"""How Sphinx builds the site out of the pages in this folder: `make docs`."""

import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "docs/_extensions"), str(ROOT)]

project = "InferenceServer"
copyright = "the InferenceServer authors"  # noqa: A001 - Sphinx's name for it
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "own_files", "reference_pages"]
# The source is the whole repository, so that pages may link to what lies outside this folder.
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "*.md",
    "inference_client/README.md",
    "examples/README.md",
    "examples/**/README.md",
    "runtimes/**/README.md",
]
exclude_patterns = [".*", "**/.*", "docs/_*", "public_api/help_files", "data", "demo"]
# Pages are written for GitHub's anchors too.
myst_heading_anchors = 4
nitpicky = True

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"

templates_path = ["_templates"]
html_theme = "furo"
html_title = f"InferenceServer {release}"
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "calls.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_copy_source = False
html_show_sphinx = False


def draw_trees(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Show the tree in a module's docstring as it is drawn."""
    first = next((number for number, line in enumerate(lines) if line.startswith("├")), None)
    if first is not None:
        tree = ["   " + line for line in lines[first - 1 :]]
        lines[first - 1 :] = ["::", "", *tree]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", draw_trees)
