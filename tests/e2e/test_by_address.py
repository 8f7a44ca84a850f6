"""The Compose stack where clients have no name for it, only its address."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from tests.doc_pages import section
from tests.e2e.checkout import paste
from tests.e2e.compose import DOMAIN, Compose, compose_project
from tests.services import require_docker

ADDRESS = "127.0.0.1"
PAGE = section("docs/how-to/no-dns.md", "By its address")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Started by the commands of the page, up to the certificate."""
    require_docker()
    with compose_project(tmp_path_factory.mktemp("stack")) as (compose, _):
        for made in ("server.key", "server.crt"):
            (compose.folder / "traefik/certs" / made).unlink()
        # What the page writes to .env must count.
        del compose.variables["PROXY_DOMAIN"]
        paste(compose.folder, in_place(compose, PAGE.shell[0]), fails=False, **compose.variables)
        yield compose


def in_place(compose: Compose, text: str) -> str:
    """The page's text with what is so here."""
    text = text.replace("https://192.0.2.10", address_of(compose)).replace("192.0.2.10", ADDRESS)
    return text.replace("docker compose exec ", "docker compose exec -T ").replace("-T -T", "-T")


def address_of(compose: Compose) -> str:
    return compose.url.replace(DOMAIN, ADDRESS)


def certificate(compose: Compose) -> Path:
    return compose.folder / "server.crt"


def test_infer_trusts_it_by_the_certificate_that_compose_made(stack: Compose) -> None:
    listed = paste(stack.folder, in_place(stack, PAGE.shell[1]), fails=False, **stack.variables)
    assert "error" not in listed.lower()


def test_a_client_that_asks_for_no_name_gets_the_certificate_and_the_door(stack: Compose) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate(stack)))
    ready = httpx.get(f"{address_of(stack)}/readyz", verify=trusted, timeout=60)
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_another_name_leads_nowhere(stack: Compose) -> None:
    answer = httpx.get(f"{stack.url}/readyz", verify=False, timeout=60)  # noqa: S501 - it is for the address
    assert answer.status_code == 404
    told = paste(stack.folder, f"infer --server {stack.url} --ca server.crt models list", fails=True, **stack.variables)
    assert f"not for {DOMAIN}" in told
    assert f"PROXY_DOMAIN={DOMAIN}" in told


def test_live_calls_go_to_the_same_address(stack: Compose) -> None:
    credentials = grpc.ssl_channel_credentials(certificate(stack).read_bytes())
    target = f"{ADDRESS}:{stack.variables['HTTPS_PORT']}"
    with grpc.secure_channel(target, credentials) as channel:
        live: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive"
        )
        assert live(b"", timeout=60) == b"\x08\x01"
