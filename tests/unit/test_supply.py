"""What a release is made of, and what is known against it: with the real tools, and advisories of our own."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests import advisories
from tests.services import missing

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-supply/bin/python"
LOCKED = (ROOT / "requirements/server.txt").read_text()
PINNED = f"registry.example.org:5000/mirror/traefik@sha256:{'0' * 64}"
HOLE = {
    "id": "PYSEC-1",
    "summary": "it does too much",
    "aliases": ["CVE-2026-1"],
    "affected": [
        {
            "package": {"name": "alembic", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


@pytest.fixture(autouse=True, scope="module")
def _tools_are_there() -> None:
    if not PYTHON.exists():
        missing("there is no .venv-supply; make supply creates it")


def write_sbom(out: Path) -> bytes:
    """What it writes where Traefik is pinned, and nothing else is set."""
    variables = {"PATH": "/usr/bin:/bin", "TRAEFIK_IMAGE": PINNED}
    subprocess.run([PYTHON, "-m", "tests.sbom", out], cwd=ROOT, env=variables, capture_output=True, check=True)
    return out.read_bytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_sbom(tmp_path_factory.mktemp("sbom") / "new" / "sbom.json")


@pytest.fixture
def document(written: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(written)
    return found


def test_the_document_lists_every_package_of_the_image_with_its_hashes(document: dict[str, Any]) -> None:
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "inference-server"
    found = {
        component["name"]: {
            entry["content"]
            for reference in component.get("externalReferences", [])
            for entry in reference.get("hashes", [])
        }
        for component in document["components"]
        if component["purl"].startswith("pkg:pypi/")
    }
    entries = re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)(.*\n(?: .*\n)*)", LOCKED, re.MULTILINE)
    locked = {
        name: set(re.findall(r"sha256:(\w+)", rest))
        for name, _, rest in entries
        if "sys_platform == 'win32'" not in rest
    }
    assert found == locked | {"inferenceserver-client": set()}
    assert len(locked) < len(entries)


def test_it_names_the_files_of_others_by_the_versions_that_lie_here(document: dict[str, Any]) -> None:
    found = {each["purl"] for each in document["components"] if each["purl"].startswith(("pkg:npm/", "pkg:golang/"))}
    swagger = (ROOT / "docs/decisions/0019-swagger-ui.md").read_text()
    seccomp = (ROOT / "job_consumer/engines/docker/seccomp_profile/NOTICE").read_text()
    (version,) = re.findall(r"`swagger-ui-dist` ([\d.]+\d),", swagger)
    (module,) = re.findall(r"module (\S+ v[\d.]+\d),", seccomp)
    assert found == {f"pkg:npm/swagger-ui-dist@{version}", f"pkg:golang/{module.replace(' ', '@')}"}


def test_it_names_the_images_of_others_as_they_are_pinned(document: dict[str, Any]) -> None:
    images = {each["name"]: each for each in document["components"] if each["type"] == "container"}
    assert images.keys() == {"python", "postgres", "rabbitmq", "registry.example.org:5000/mirror/traefik"}
    assert images["python"]["purl"] == "pkg:docker/python@3.13-slim"
    traefik = images["registry.example.org:5000/mirror/traefik"]
    assert traefik["version"] == f"sha256:{'0' * 64}"
    assert "repository_url=registry.example.org" in traefik["purl"]


def test_the_same_sources_give_the_same_bytes(written: bytes, tmp_path: Path) -> None:
    assert write_sbom(tmp_path / "again") == written


@contextmanager
def osv(answer: str | None) -> Iterator[str]:
    """A service of advisories, which says `answer` of alembic and nothing of others; None: it never answers."""
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if answer is None:
                over.wait()
                return
            body = answer if asked["package"]["name"] == "alembic" else "{}"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def test_a_known_hole_fails_the_check_and_says_what_mends_it(capsys: pytest.CaptureFixture[str]) -> None:
    with osv(json.dumps({"vulns": [HOLE]})) as url:
        assert advisories.main(["--osv-url", url]) == 1
        said = capsys.readouterr().err
        assert re.fullmatch(r"advisories: alembic \S+ has PYSEC-1, CVE-2026-1; fixed in 99\.1\n", said)
        assert advisories.main(["--osv-url", url, "--ignore-vuln", "PYSEC-1"]) == 0


def test_without_a_hole_the_check_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with osv("{}") as url:
        assert advisories.main(["--osv-url", url]) == 0
    assert re.fullmatch(r"advisories: no advisory names any of the \d\d packages\n", capsys.readouterr().out)


def test_where_nobody_answers_the_check_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert advisories.main(["--osv-url", "http://127.0.0.1:1"]) == 0
    with osv("<html>log in</html>") as url:
        assert advisories.main(["--osv-url", url]) == 0
    monkeypatch.setattr(advisories, "LIMIT_S", 3.0)
    with osv(None) as url:
        assert advisories.main(["--osv-url", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("advisories could not be looked up: ") for line in lines)


def test_a_tool_that_fails_by_itself_fails_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert advisories.main(["--no-such-option"]) == 1
    assert "no-such-option" in capsys.readouterr().err
