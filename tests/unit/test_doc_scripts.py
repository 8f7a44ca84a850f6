"""The pages show the scripts that are tested, and all of them."""

from tests.doc_scripts import ROOT, shown_scripts

CLIENTS = ROOT / "tests" / "grpc" / "clients"
PAGES = ("kserve", "ray", "redhare", "tensorflow")
"""Whose clients the page of the same name shows."""


def test_every_script_on_a_page_is_its_file() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for path, text in shown_scripts(page).items():
            assert text == (ROOT / path).read_text(encoding="utf-8"), (
                f"{page}: {path}; run: python -m tests.doc_scripts"
            )


def test_every_client_is_shown_on_its_page() -> None:
    for name in PAGES:
        shown = shown_scripts(ROOT / "docs" / "grpc" / f"{name}.md")
        clients = {f"tests/grpc/clients/{path.name}" for path in CLIENTS.glob(f"{name}_*.py")}
        assert clients
        assert clients == set(shown)
