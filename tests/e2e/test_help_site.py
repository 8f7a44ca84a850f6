"""The site at `/help` in a real browser: it is whole, it needs no other host, and `/docs` and it lead to each other."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

from public_api.help import FILES, START
from tests.browser import apply_traefiks_policy, open_page, require_chromium
from tests.e2e.systems import System, standalone_system
from tests.services import missing

ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(
    r"""(?:<(?:script|link|img|source)\b[^>]*?\b(?:src|href)|url\(|@import)\s*[=(]?\s*["']?(https?:)?//"""
)


@pytest.fixture(scope="module")
def site() -> Path:
    if not (FILES / START).is_file():
        missing("the site is not built; make docs")
    return FILES


@pytest.fixture(scope="module")
def system(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_chromium()
    with standalone_system(tmp_path_factory.mktemp("help"), engine="process") as running:
        yield running


def test_every_link_of_the_site_leads_to_a_file_and_an_anchor_of_it(site: Path) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    dead = []
    for page, text in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            address, anchor = urldefrag(link)
            address = address.partition("?")[0]
            if re.match(r"[a-z]+:", address):
                continue
            target = Path(unquote(urljoin(page.as_uri(), address).removeprefix("file://"))) if address else page
            if target == site.parent / "docs":  # Swagger UI, which the server has beside the site.
                continue
            if not target.is_file() or (anchor and target in pages and unquote(anchor) not in anchors[target]):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert len(pages) > 50
    assert dead == []


def test_no_file_of_the_site_loads_anything_from_another_host(site: Path) -> None:
    loaded = [
        f"{path.relative_to(site)}: {match[0]}"
        for path in site.rglob("*")
        if path.suffix in (".html", ".css", ".svg")
        for match in OUTSIDE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert loaded == []


def test_docs_and_help_lead_to_each_other(system: System, tmp_path: Path) -> None:
    with open_page(f"{system.url}/docs") as page:
        with page.expect_popup() as opened:
            page.get_by_role("link", name="Help", exact=True).click()
        site = opened.value
        site.wait_for_url(f"{system.url}/help/{START}")
        site.screenshot(path=tmp_path / "help.png")
        site.get_by_role("link", name="Make calls here").first.click()
        site.wait_for_url(f"{system.url}/docs")


def test_a_word_is_found(system: System) -> None:
    with open_page(f"{system.url}/help") as page:
        page.get_by_placeholder("Search").first.fill("resurrection")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="The life of a task").first.click()
        page.get_by_role("heading", name="The life of a task").first.wait_for()


def test_the_reader_can_choose_the_dark_theme(system: System) -> None:
    with open_page(f"{system.url}/help") as page:
        before = page.locator("body").get_attribute("data-theme")
        page.locator("button.theme-toggle:visible").first.click()
        assert page.locator("body").get_attribute("data-theme") not in (before, None)


def test_the_pages_work_under_the_policy_that_traefik_sends(system: System) -> None:
    with open_page("about:blank", system.url) as page:
        apply_traefiks_policy(page, "**/help/**")
        page.goto(f"{system.url}/help/docs/reference/http.html")
        page.get_by_role("heading", name="Every call of the HTTP API").wait_for()
