"""The certificate that Traefik shows: how the script makes one, and what `inference-server doctor` says of it."""

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inference_client import InferenceClient
from inference_client.errors import ServiceUnavailable
from operations.checks import certificate
from operations.findings import Level

ROOT = Path(__file__).parents[2]


def run_script(folder: Path, *arguments: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    script = ROOT / "traefik/certs/generate_self_signed_certs"
    folder.mkdir()
    copy = folder / script.name
    copy.write_bytes(script.read_bytes())
    copy.chmod(0o755)
    return subprocess.run([copy, *arguments], check=False, capture_output=True, text=True, env={"PATH": path})


def make_certificate(folder: Path, domain: str, days: int = 825) -> None:
    made = run_script(folder, domain, str(days))
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("10.0.0.777", "bad ip address"),
        ("10.0.7", "bad ip address"),
        ("fd00::7/64", "is not a domain name such as"),
        ("10.0.0.7,IP:10.0.0.8", "nor an address such as"),
        ("a.example.org,DNS:b.example.org", "is not a domain name"),
        ("*.example.org", "is not a domain name"),
        ("example.org/O=me", "is not a domain name"),
        (".example.org", "is not a domain name"),
    ],
)
def test_no_certificate_is_made_for_what_is_no_domain(tmp_path: Path, domain: str, why: str) -> None:
    made = run_script(tmp_path / "certs", domain)
    assert (made.returncode, made.stderr.count("\n")) == (1, 1)
    assert made.stderr.startswith("no certificate was made: ")
    assert why in made.stderr
    assert [each.name for each in (tmp_path / "certs").iterdir()] == ["generate_self_signed_certs"]


def test_no_certificate_is_made_without_the_names_that_grpc_clients_look_at(tmp_path: Path) -> None:
    # As with an openssl that does not know the option and goes on.
    real, old = shutil.which("openssl"), tmp_path / "bin/openssl"
    old.parent.mkdir()
    old.write_text(
        "#!/bin/sh\nfor each; do shift; case $each in *subjectAltName=*) each=nsComment=none ;; esac\n"
        f'set -- "$@" "$each"; done\nexec {real} "$@"\n'
    )
    old.chmod(0o755)
    made = run_script(tmp_path / "certs", "example.org", path=f"{old.parent}:{os.environ['PATH']}")
    assert (made.returncode, made.stderr) == (
        1,
        "no certificate was made: this openssl leaves out the name example.org (SAN); "
        "version 1.1.1 or newer writes it\n",
    )
    assert [each.name for each in (tmp_path / "certs").iterdir()] == ["generate_self_signed_certs"]


def test_the_certificate_that_the_script_makes_is_fine_for_its_domain_only(tmp_path: Path) -> None:
    make_certificate(tmp_path / "certs", "inference.example.org")
    found = certificate.check_certificate(tmp_path / "certs", "inference.example.org")
    names = "inference.example.org, grpc.inference.example.org, *.grpc.inference.example.org"
    assert (found.level, found.found) == (Level.OK, f"for {names}, valid for 825 days")
    assert certificate.check_certificate(tmp_path / "certs", "other.example.org").level is Level.PROBLEM


@pytest.mark.parametrize(("address", "printed"), [("10.0.0.7", "10.0.0.7"), ("fd00::7", "FD00:0:0:0:0:0:0:7")])
def test_a_certificate_may_be_for_an_address(tmp_path: Path, address: str, printed: str) -> None:
    make_certificate(tmp_path / "certs", address)
    found = certificate.check_certificate(tmp_path / "certs", address)
    assert (found.level, found.found) == (Level.OK, f"for {printed}, valid for 825 days")
    assert certificate.check_certificate(tmp_path / "certs", "10.0.0.8").level is Level.PROBLEM


@pytest.fixture
def by_address(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTPS server at an address, with the certificate of the script, and where that lies."""
    make_certificate(tmp_path / "certs", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certs/server.crt", tmp_path / "certs/server.key")

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}", tmp_path / "certs/server.crt"
        finally:
            server.shutdown()
            thread.join()


def test_clients_trust_it_at_that_address_and_are_told_what_to_do_at_another_name(by_address: tuple[str, Path]) -> None:
    url, ca = by_address
    with InferenceClient(url, verify=ca) as client:
        assert list(client.list_models()) == []
    elsewhere = url.replace("127.0.0.1", "localhost")
    with (
        InferenceClient(elsewhere, verify=ca) as client,
        pytest.raises(ServiceUnavailable, match="certificate that is not for localhost") as told,
    ):
        list(client.list_models())
    assert "PROXY_DOMAIN=localhost" in str(told.value)
    assert "--ca" not in str(told.value)


def test_a_certificate_without_the_name_of_the_grpc_door_is_warned_about() -> None:
    parsed = certificate.Certificate(begins_s=0, ends_s=10**9, names=("example.org",))
    found = certificate.judge_certificate(parsed, "example.org", 1, "make one")
    assert found.level is Level.WARNING
    assert "not for grpc.example.org" in found.found


def test_a_certificate_that_ends_soon_is_warned_about(tmp_path: Path) -> None:
    make_certificate(tmp_path / "certs", "localhost", days=10)
    assert certificate.check_certificate(tmp_path / "certs", "localhost").level is Level.WARNING


def test_a_key_of_another_certificate_is_a_problem(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_certificate(tmp_path / name, "localhost")
    (tmp_path / "two/server.key").replace(tmp_path / "one/server.key")
    found = certificate.check_certificate(tmp_path / "one", "localhost")
    assert found.level is Level.PROBLEM
    assert "does not belong to" in found.found


def test_without_a_certificate_of_the_operator_compose_makes_one(tmp_path: Path) -> None:
    found = certificate.check_given_certificate(tmp_path, "localhost")
    assert (found.level, found.found) == (Level.OK, f"none in {tmp_path}: Compose makes a self-signed one")
    make_certificate(tmp_path / "certs", "localhost")
    assert certificate.check_given_certificate(tmp_path / "certs", "example.org").level is Level.PROBLEM


def test_a_missing_certificate_is_a_problem(tmp_path: Path) -> None:
    found = certificate.check_certificate(tmp_path, "localhost")
    assert found.level is Level.PROBLEM
    assert "generate_self_signed_certs localhost" in found.advice


def test_a_certificate_is_judged_by_its_dates_and_names() -> None:
    printed = (
        "notBefore=Feb 23 07:40:00 2026 GMT\n"
        "notAfter=Mar  5 07:40:00 2026 GMT\n"
        "X509v3 Subject Alternative Name: \n"
        "    DNS:example.org, DNS:*.example.org, IP Address:10.0.0.7\n"
    )
    parsed = certificate.parse_certificate(printed)
    assert parsed.names == ("example.org", "*.example.org", "10.0.0.7")
    assert parsed.ends_s - parsed.begins_s == 10 * 24 * 3600
    before, after = parsed.begins_s - 1, parsed.ends_s
    assert certificate.judge_certificate(parsed, "a.example.org", before, "").found == "not valid yet"
    assert certificate.judge_certificate(parsed, "a.example.org", after, "").found.startswith("expired")


@pytest.mark.parametrize(
    ("name", "domain", "covered"),
    [
        ("example.org", "EXAMPLE.org", True),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "a.b.example.org", False),
        ("10.0.0.7", "10.0.0.7", True),
        ("*.0.0.7", "10.0.0.7", False),
        ("FD00:0:0:0:0:0:0:7", "fd00::7", True),
        ("example.org", "10.0.0.7", False),
        ("*.", "localhost", False),
    ],
)
def test_a_star_stands_for_one_label(name: str, domain: str, covered: bool) -> None:
    assert certificate.covers(name, domain) is covered
