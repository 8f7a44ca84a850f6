"""Golden files: what a pure function decided when somebody last looked at it, as JSON beside the tests.

`UPDATE_GOLDEN=1` writes them; read the difference before you commit it. Without it a difference fails the test.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

UPDATE = "UPDATE_GOLDEN"


def check_golden(path: Path, value: Any) -> None:
    """Compare a value with a golden file, or write the file where that was asked for."""
    text = json.dumps(value, indent=2, default=_plain) + "\n"
    if os.environ.get(UPDATE) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing; {UPDATE}=1 writes it"
    golden = path.read_text()
    # Compared as values first: pytest shows their difference better than that of two texts.
    assert json.loads(text) == json.loads(golden), f"{path.name} differs; if that is wanted, {UPDATE}=1 writes it"
    assert text == golden, f"{path.name} differs in its order or layout; {UPDATE}=1 writes it"


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)
