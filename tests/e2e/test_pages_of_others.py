"""A page of another site in a real browser, beside a standalone server of the visitor's that asks for no key."""

import os
import threading
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser import require_chromium
from tests.e2e.systems import System, standalone_system
from tests.waiting import PATIENCE_S
from tests.zips import make_zip

# A form needs no permission by CORS, whatever it is sent to. Its file is put in by a script.
FORM = """
<form method="post" enctype="multipart/form-data"
 action="{server}/api/models/?human_readable_id=evil&container_tag=process:run.sh&model_available=true">
<input type="file" name="zip_file"></form>
<script>
const zip = Uint8Array.from(atob("{zip}"), (each) => each.charCodeAt(0));
const files = new DataTransfer();
files.items.add(new File([zip], "evil.zip", {{type: "application/zip"}}));
document.querySelector("input").files = files.files;
document.querySelector("form").submit();
</script>
"""
READ = "path => fetch(path).then(answer => answer.text())"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    require_chromium()
    with standalone_system(tmp_path_factory.mktemp("server"), engine="process") as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    """Of a browser for which every name leads to this machine, as an attacker's DNS does it for one."""
    options = ["--host-resolver-rules=MAP evil.example 127.0.0.1"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_chromium(), args=options)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        yield page
        browser.close()


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Where it is, and the folder of its pages."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://evil.example:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_form_that_a_page_of_another_site_sends_runs_nothing(
    system: System, page: Page, other_site: tuple[str, Path]
) -> None:
    url, folder = other_site
    zipped = b64encode(make_zip({"run.sh": b"#!/bin/sh\nid > /output/id"})).decode()
    (folder / "index.html").write_text(FORM.format(server=system.url, zip=zipped))
    with page.expect_response(lambda answer: answer.url.startswith(system.url)) as answered:
        page.goto(url)
    assert answered.value.status == 403
    assert "may not do this in its visitor's name" in page.locator("body").inner_text()
    assert httpx.get(f"{system.url}/api/models/", trust_env=False).json() == []


def test_a_page_whose_name_leads_here_reads_nothing(system: System, page: Page) -> None:
    port = system.url.rpartition(":")[2]
    page.goto(f"http://evil.example:{port}/docs")
    assert "this server is not called 'evil.example'" in page.evaluate(READ, "/api/models/")
    page.goto(f"{system.url}/docs")
    assert page.evaluate(READ, "/api/models/") == "[]"
