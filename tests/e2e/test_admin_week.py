"""A week as the admin, day by day, on a stack of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doc_pages import section
from tests.e2e.checkout import copy_checkout, paste
from tests.e2e.compose import IMAGE, Compose, beside_others
from tests.services import require_docker

PAGE = "docs/tutorials/week-as-admin.md"
LOCAL = "https://localhost"
AS_ROOT = 'sudo() { "$@"; }'


class Week:
    """A checkout, its stack, and what the shell of the admin remembers from day to day."""

    def __init__(self, folder: Path, compose: Compose, home: Path) -> None:
        self.folder = folder
        self.compose = compose
        self._home = home

    def live(self, day: str, *, skip: tuple[str, ...] = ()) -> str:
        """Paste what the page says for a day; returns all that it printed."""
        (title,) = [title for title in DAYS if title.startswith(day)]
        # As one shell: variables of a block are used in the next one.
        lines = [line for block in section(PAGE, title).shell for line in block.splitlines() if line not in skip]
        text = "\n".join(lines).replace(LOCAL, self.compose.url).replace("inference-server:next", f"{IMAGE}-next")
        text = re.sub(r"(drain|resume) cpu", rf"\1 {self.compose.variables['CONSUMER_NAME']}", text)
        return paste(self.folder, AS_ROOT, text, HOME=str(self._home), **self.compose.variables)

    def read(self, page: str, titles: tuple[str, ...]) -> str:
        """Paste sections of another page; returns what they printed."""
        text = "\n".join(block for title in titles for block in section(page, title).shell)
        for shown, here in INSTEAD.items():
            text = text.replace(shown, here)
        text = text.replace("localhost:443:", f"localhost:{self.compose.variables['HTTPS_PORT']}:")
        text = text.replace("PROJECT_NAME=drill", f"PROJECT_NAME={self.compose.project}-drill")
        text = re.sub(rf"{LOCAL}(?=[ /])", self.compose.url, text)
        # Another user of this machine: whoever logs in here is not the admin.
        reader = self._home / "reader"
        reader.mkdir(exist_ok=True)
        return paste(self.folder, AS_ROOT, text, HOME=str(reader), **self.compose.variables)


BESIDE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("docs/operations/access.md", ("Two modes", "Keys", "Quotas", "A key for each consumer's host")),
    ("docs/how-to/give-access.md", ("Make a key", "What the student does", "Later")),
    ("docs/how-to/monitor.md", ("Is the host well?", "What happened?")),
    ("docs/how-to/no-dns.md", ("One command, without touching the client",)),
    ("docs/operations/troubleshooting.md", ("Troubleshooting",)),
    ("docs/operations/backup.md", ("Back up", "With your database's own tools", "Try it")),
)
"""Pages that the admin of a running stack reads, with the sections that are pasted."""
INSTEAD = {
    "keys list --owner radiology": "keys list",
    **{
        f"keys {act} 0123456789abcdef": f"keys {act} $(docker compose exec -T private-api inference-server keys list "
        "| grep valid | grep -oE '[0-9a-f]{16}' | tail -n 1)"
        for act in ("rotate", "revoke")
    },
    # Of a standalone server: every walk of test_page_commands.py begins with this command.
    "inference-server keys create --owner ada --scope submit --data-dir data": ":",
    "https://inference.example.org --ca server.crt login": f"{LOCAL} --ca server.crt login --key-stdin < mira.key",
    "inference-server doctor": "inference-server doctor || true",
    "grep task=<uid>": "grep task=",
    "inference.lan": "localhost",
    "192.0.2.10": "127.0.0.1",
    "docker compose run ": "docker compose run -T ",
    "docker compose exec ": "docker compose exec -T ",
    "-T -T": "-T",
    # The drill's stack has a certificate of its own; the clients go on with the first one.
    "> server.crt\ncurl -sS --cacert server.crt https://localhost:18444": "> drill.crt\ncurl -sS --cacert drill.crt https://localhost:18444",
    "backup:/backup": "nightly:/backup",
    "10001 backup": "10001 nightly",
}
"""What a reader puts in place of the pages' own names, and what a shell without a terminal needs."""
DAYS = (
    "Monday: install",
    "Tuesday: let people in",
    "Wednesday: a bad day",
    "Thursday: lose everything, and restore it",
    "Friday: upgrade, and go home",
)
CLONE = "git clone <this repository> inference-server && cd inference-server"


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    require_docker()
    folder = copy_checkout(tmp_path_factory.mktemp("admin") / "inference-server")
    compose = Compose(folder, beside_others())
    try:
        yield Week(folder, compose, tmp_path_factory.mktemp("home"))
    finally:
        compose.run("down", "--volumes", "--timeout", "5", check=False)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_week_as_the_admin(week: Week) -> None:
    # What the environment says, `.env` could not: the test's own image would win.
    variables = week.compose.variables
    monday = week.live("Monday", skip=(CLONE,))
    assert "(healthy)" in monday
    assert "cpu" in monday
    tuesday = week.live("Tuesday")
    assert (week.folder / "mira.zip").is_file()
    assert "scope" in tuesday
    assert "mira" in tuesday
    wednesday = week.live("Wednesday")
    assert "cannot open /model/weights" in wednesday
    assert "exit_code" in wednesday
    assert "reason=exit_code" in wednesday
    for page, titles in BESIDE:
        week.read(page, titles)
    thursday = week.live("Thursday")
    assert "backup complete: " in thursday
    assert "restored: " in thursday
    assert "mira" in thursday.rpartition("restored: ")[2]
    variables.pop("INFERENCE_SERVER_IMAGE", None)
    friday = week.live("Friday")
    assert "queued" in friday
    assert "finished" in friday.rpartition("queued")[2]
