"""Writes the template of a model: the files below `template/`, without their suffix."""

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from inference_client.errors import UnusableInput

_SUFFIX = ".template"
"""Keeps tools that look for code or build files from taking the template's for ours."""


def write_template(folder: Path) -> list[Path]:
    """Fill `folder`, which must be new or empty, and return the files. Raises `UnusableInput`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UnusableInput(f"{folder} exists and is not an empty folder; nothing was written: name another")
    name = model_name(folder)
    written = []
    for path, source in _walk(files("inference_client") / "template", folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.read_text(encoding="utf-8").replace("@name@", name), encoding="utf-8")
        written.append(path)
    return sorted(written)


def model_name(folder: Path) -> str:
    """The id of a model that is made of this folder: its name, in the letters that ids may have."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")
    return name[:128] or "model"


def _walk(source: Traversable, target: Path) -> Iterator[tuple[Path, Traversable]]:
    for entry in source.iterdir():
        if entry.is_dir():
            yield from _walk(entry, target / entry.name)
        elif entry.name.endswith(_SUFFIX):
            yield target / entry.name.removesuffix(_SUFFIX), entry
