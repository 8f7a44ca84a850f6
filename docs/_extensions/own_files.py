"""Moves scripts out of the site's pages into files beside them, so that its pages run under `script-src 'self'`."""

import hashlib
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_INLINE = re.compile(r"<script>(?P<text>.*?)</script>", re.DOTALL)


def _move_scripts(page: Path, root: Path) -> None:
    def move(match: re.Match[str]) -> str:
        text = match["text"]
        file = root / "_static" / f"inline-{hashlib.sha256(text.encode()).hexdigest()[:12]}.js"
        file.write_text(text, encoding="utf-8")
        return f'<script src="{"../" * (len(page.relative_to(root).parts) - 1)}_static/{file.name}"></script>'

    html = page.read_text(encoding="utf-8")
    page.write_text(_INLINE.sub(move, html), encoding="utf-8")


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.name == "html":
        root = Path(app.outdir)
        for page in root.rglob("*.html"):
            _move_scripts(page, root)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True}
