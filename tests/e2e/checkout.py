"""A copy of the checkout in which a test pastes what a page says, as its reader would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.doc_pages import ROOT

PLACEHOLDERS = {"<this repository>": str(ROOT)}


def copy_checkout(target: Path) -> Path:
    """Every file that git knows, with an activated environment beside it; returns `target`."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    # What `make setup` would make: everything locked in requirements/dev.txt.
    (target / ".venv").symlink_to(sys.prefix)
    return target


def run_in(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a checkout, with its environment activated."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def paste(folder: Path, *lines: str, fails: bool = False, **variables: str) -> str:
    """Run lines in one shell that stops at the first failure; returns what they printed, on both streams."""
    done = run_in(folder, "bash", "-euo", "pipefail", "-c", "\n".join(("exec 2>&1", *lines)), **variables)
    assert (done.returncode != 0) == fails, f"exit code {done.returncode}\n{done.stdout}"
    return done.stdout
