"""What Compose's one-shot service makes before the others start, and what it leaves as it is."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from operations.checks.certificate import check_certificate
from operations.findings import Level
from operations.init import SERVICE_UID, CertificateError, Folders, InitSettings, main, prepare
from operations.rabbitmq_user import configuration, hash_password
from operations.secrets import SecretsError, make_secrets

ROOT = Path(__file__).parents[2]
DOMAIN = "inference.example.org"
SETTINGS = InitSettings(proxy_domain=DOMAIN)
# Only root can give files to the services, as init does.
OWNER = SERVICE_UID if os.geteuid() == 0 else os.getuid()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """As on a fresh clone: the operator gave nothing, and Docker made what is missing, for root."""
    monkeypatch.setenv("PATH", f"{ROOT / 'traefik/certs'}:{os.environ['PATH']}")
    names = ("secrets", "certs", "data", "login", "made/service", "made/postgres", "made/rabbitmq", "made/certificate")
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    given, mine = (tmp_path / "secrets", tmp_path / "certs"), (tmp_path / "made", tmp_path / "data", tmp_path / "login")
    return Folders(*given, *mine, OWNER)


def made(folders: Folders) -> Mapping[str, str]:
    """The content of what lies in the volumes, but the salted hash of RabbitMQ's password."""
    files = (path for path in folders.made.rglob("*") if path.is_file() and path.name != "definitions.json")
    return {str(path.relative_to(folders.made)): path.read_text() for path in files}


def test_everything_is_made_once_and_nothing_of_it_is_told(folders: Folders) -> None:
    told = list(prepare(folders, SETTINGS))
    before = made(folders)
    assert told == [
        "made service_token",
        "made postgres_password",
        "made rabbit_password",
        f"made a self-signed certificate for {DOMAIN}",
    ]
    assert list(prepare(folders, SETTINGS)) == []
    assert made(folders) == before
    assert sorted(before) == [
        "certificate/server.crt",
        "certificate/server.key",
        "postgres/postgres_password",
        "rabbitmq/rabbit_password",
        "rabbitmq/rabbitmq.conf",
        "service/service_token",
    ]
    assert check_certificate(folders.made / "certificate", DOMAIN).level is Level.OK


def test_only_the_readers_may_read(folders: Folders) -> None:
    list(prepare(folders, SETTINGS))
    for path in folders.made.rglob("*"):
        status = path.stat()
        if "certificate" not in path.parts:
            expected = (OWNER, 0o700 if path.is_dir() else 0o400)
            assert (status.st_uid, stat.S_IMODE(status.st_mode)) == expected, path
    assert stat.S_IMODE((folders.made / "certificate/server.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folders.made / "certificate/server.crt").stat().st_mode) == 0o644


def test_the_secrets_of_an_operator_come_first_whenever_they_appear(folders: Folders) -> None:
    list(prepare(folders, SETTINGS))
    make_secrets(folders.secrets)
    given = {path.name: path.read_text() for path in folders.secrets.iterdir()}
    assert list(prepare(folders, SETTINGS)) == ["took service_token", "took postgres_password", "took rabbit_password"]
    taken = {name.partition("/")[2]: text for name, text in made(folders).items()}
    assert {name: taken[name] for name in given if name != "rabbitmq.conf"} == {
        name: text for name, text in given.items() if name != "rabbitmq.conf"
    }
    assert taken["rabbitmq.conf"].startswith(given["rabbitmq.conf"])


def test_rabbitmq_s_password_is_taken_from_its_configuration(folders: Folders) -> None:
    password = "0123456789abcdef" * 2
    (folders.secrets / "rabbitmq.conf").write_text(f"default_user = inference\ndefault_pass = {password}\n")
    list(prepare(folders, SETTINGS))
    assert made(folders)["rabbitmq/rabbit_password"] == password


def test_an_unusable_secret_of_an_operator_is_told_and_changes_nothing(folders: Folders) -> None:
    (folders.secrets / "service_token").write_text("changeme")
    with pytest.raises(SecretsError, match="service_token is a well-known default; correct or remove this file"):
        list(prepare(folders, SETTINGS))
    assert made(folders) == {}


def test_what_a_crash_left_of_a_secret_is_replaced(folders: Folders) -> None:
    (folders.made / "service/service_token").write_text("")
    list(prepare(folders, SETTINGS))
    assert len(made(folders)["service/service_token"]) == 64


def test_rabbitmq_gets_the_user_with_a_hash_of_the_password(folders: Folders) -> None:
    list(prepare(folders, InitSettings(rabbit_user="lab", rabbit_vhost="/lab")))
    text = (folders.made / "rabbitmq/definitions.json").read_text()
    password = made(folders)["rabbitmq/rabbit_password"]
    assert password not in text
    found = json.loads(text)
    (user,) = found["users"]
    assert user["name"] == "lab"
    assert found["vhosts"] == [{"name": "/lab"}]
    assert found["permissions"] == [{"user": "lab", "vhost": "/lab", "configure": ".*", "write": ".*", "read": ".*"}]


def test_the_hash_is_rabbitmq_s_own() -> None:
    # The worked example of https://www.rabbitmq.com/docs/passwords#computing-password-hash.
    assert hash_password("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_definitions_of_an_operator_s_own_are_left_to_them() -> None:
    assert configuration("") == "load_definitions = /etc/rabbitmq/definitions.json\n"
    given = "vm_memory_high_watermark.relative = 0.5"
    assert configuration(given) == f"{given}\nload_definitions = /etc/rabbitmq/definitions.json\n"
    assert configuration("load_definitions = /mine.json") == "load_definitions = /mine.json\n"


def test_a_certificate_is_made_anew_for_another_domain_and_half_of_a_pair(folders: Folders) -> None:
    list(prepare(folders, SETTINGS))
    assert list(prepare(folders, InitSettings(proxy_domain="localhost"))) == [
        "made a self-signed certificate for localhost"
    ]
    (folders.made / "certificate/server.crt").unlink()
    assert list(prepare(folders, InitSettings(proxy_domain="localhost"))) == [
        "made a self-signed certificate for localhost"
    ]


def test_beside_an_operator_s_certificate_none_is_made(folders: Folders) -> None:
    (folders.certificates / "server.crt").touch()
    list(prepare(folders, SETTINGS))
    assert not list((folders.made / "certificate").iterdir())


def test_a_domain_that_no_certificate_can_be_for_is_told(folders: Folders) -> None:
    with pytest.raises(CertificateError, match=r"PROXY_DOMAIN=10\.0\.0\.256: .*bad ip address"):
        list(prepare(folders, InitSettings(proxy_domain="10.0.0.256")))
    with pytest.raises(CertificateError, match=r"PROXY_DOMAIN=fd00::1: Traefik knows no IPv6 address"):
        list(prepare(folders, InitSettings(proxy_domain="fd00::1")))


def test_an_address_gets_a_certificate_once(folders: Folders) -> None:
    settings = InitSettings(proxy_domain="10.0.0.1")
    assert list(prepare(folders, settings))[-1] == "made a self-signed certificate for 10.0.0.1"
    assert list(prepare(folders, settings)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder that Docker made is root's")
def test_a_data_folder_that_docker_made_is_given_to_the_services_and_no_other(folders: Folders) -> None:
    list(prepare(folders, SETTINGS))
    assert folders.data.stat().st_uid == folders.login.stat().st_uid == SERVICE_UID
    os.chown(folders.data, 0, 0)
    (folders.data / "somebody's").touch()
    list(prepare(folders, SETTINGS))
    assert folders.data.stat().st_uid == 0


def test_a_fault_ends_it_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    # There is no /made on this machine.
    assert main() == 2
    assert capsys.readouterr().err.startswith("init: ")
