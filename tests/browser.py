"""A real Chromium, and Swagger UI as somebody uses it there: with mouse and keyboard."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import SplitResult, urlsplit

from playwright.sync_api import Locator, Page, Route, sync_playwright

from tests import browser_network
from tests.browser_network import serve
from tests.services import missing
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[1]


def require_chromium() -> str:
    """The path of the browser."""
    path = shutil.which("chromium")
    if path is None:
        missing("no chromium is installed; on Debian: apt-get install chromium")
    return path


@contextmanager
def open_page(url: str, server: str | None = None) -> Iterator[Page]:
    """A page of a fresh browser, at `url`.

    At the end it must have logged no error, and asked no other host than `server`'s; unless given, that is `url`'s.
    """
    place = urlsplit(server or url)
    host = place.netloc
    troubles: list[str] = []
    # Root has no sandbox for its processes.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with _own_network(place) as chromium, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        # The certificate of a test's stack is its own.
        page = browser.new_page(viewport={"width": 1280, "height": 1400}, ignore_https_errors=True)
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("pageerror", lambda error: troubles.append(f"the script failed: {error}"))
        page.on(
            "console",
            # A refused call is shown to the reader, and logged by the browser.
            lambda line: (
                troubles.append(f"{line.type}: {line.text}")
                if line.type in ("error", "warning") and "the server responded with a status" not in line.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None
                if urlsplit(request.url).netloc in (host, "") or request.url.startswith("blob:")
                else troubles.append(f"asked {request.url}")
            ),
        )
        page.goto(url)
        yield page
        browser.close()
    assert troubles == []


@contextmanager
def _own_network(server: SplitResult) -> Iterator[Path]:
    """A program that starts the browser where nothing but the server can be reached."""
    port = server.port or (443 if server.scheme == "https" else 80)
    with TemporaryDirectory() as folder, serve(server.hostname or "", port, Path(folder, "socket")):
        program = Path(folder, "chromium")
        command = [sys.executable, browser_network.__file__, str(port), f"{folder}/socket", require_chromium()]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        program.chmod(0o755)
        yield program


class Operation:
    """One call on the page of Swagger UI, opened with "Try it out"."""

    def __init__(self, page: Page, tag: str, name: str) -> None:
        self._page = page
        self.block: Locator = page.locator(f"#operations-{tag}-{name}")
        self.block.locator(".opblock-summary-control").click()
        self.block.get_by_role("button", name="Try it out").click()

    def fill(self, **values: str) -> None:
        """Fill in or choose the parameters."""
        for name, value in values.items():
            row = self.block.locator(f'tr[data-param-name="{name}"]')
            if row.locator("select").count():
                row.locator("select").select_option(value)
            else:
                row.locator("input").fill(value)

    def attach(self, path: Path) -> None:
        """Choose a file for the body."""
        self.block.locator('input[type="file"]').set_input_files(path)

    def execute(self) -> tuple[int, str]:
        """Press "Execute"; returns the status and the body that the page shows."""
        # What an earlier call was answered goes first, so that it is not taken for this one's answer.
        if (clear := self.block.get_by_role("button", name="Clear")).count():
            clear.click()
        with self._page.expect_response(lambda answer: urlsplit(answer.url).path.startswith("/api/")) as answered:
            self.block.get_by_role("button", name="Execute").click()
        answer = self.block.locator(".live-responses-table .response")
        status = answer.locator(".response-col_status").inner_text().split()[0]
        assert int(status) == answered.value.status
        return int(status), answer.locator(".response-col_description").inner_text()

    def download(self, path: Path) -> Path:
        """Press the link that the page shows for an answer that is a file."""
        with self._page.expect_download() as started:
            self.block.get_by_role("link", name="Download file").click()
        started.value.save_as(path)
        return path


def apply_traefiks_policy(page: Page, pattern: str) -> None:
    """Give these answers the content security policy that Traefik would set."""
    # A template: it is TOML only once Traefik has filled it in.
    routes = (ROOT / "traefik" / "configuration" / "dynamic" / "routes.toml").read_text()
    (policy,) = re.findall(r'^contentSecurityPolicy = "(.*)"$', routes, re.MULTILINE)

    def replace_policy(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": policy})

    page.route(pattern, replace_policy)


def authorize(page: Page, scheme: str, secret: str) -> None:
    """Type a key into the dialog behind "Authorize"."""
    page.get_by_role("button", name="Authorize").first.click()
    form = page.locator(".auth-container", has=page.get_by_role("heading", name=scheme))
    form.locator("input").fill(secret)
    form.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").last.click()
