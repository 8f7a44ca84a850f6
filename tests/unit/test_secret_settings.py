"""Services refuse to start on secrets that are none, and say what to do without telling them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from job_consumer.settings import JobConsumerSettings
from kit.settings import Settings, SettingsError
from private_api.settings import PrivateApiSettings
from public_api.settings import PublicApiSettings

GOOD = "5b1f2c9d7e8a4630b2c1"
SECRETS = {"SERVICE_TOKEN": GOOD, "POSTGRES_PASSWORD": GOOD, "RABBIT_PASSWORD": GOOD}
EVERY_SECRET = [
    (PrivateApiSettings, "SERVICE_TOKEN"),
    (PrivateApiSettings, "POSTGRES_PASSWORD"),
    (PrivateApiSettings, "RABBIT_PASSWORD"),
    (JobConsumerSettings, "SERVICE_TOKEN"),
    (JobConsumerSettings, "RABBIT_PASSWORD"),
    (PublicApiSettings, "SERVICE_TOKEN"),
]
each_secret = pytest.mark.parametrize(("settings", "variable"), EVERY_SECRET)


def faults(settings: type[Settings], variables: Mapping[str, str]) -> list[str]:
    try:
        settings.load(variables)
    except SettingsError as error:
        return str(error).splitlines()
    return []


@each_secret
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "is empty"),
        ("guest", "is a well-known default"),
        ("Postgres-Password-123", "is a well-known default"),
        ("changeme-changeme", "is a well-known default"),
        ("CHANGE_ME_1234567890", "is a well-known default"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", "is a well-known default"),
        ("1111222233334444", "is a well-known default"),
        ("x9!kQ2", "is shorter than 16 characters"),
    ],
)
def test_a_secret_that_is_none_is_refused_by_name_and_not_told(
    settings: type[Settings], variable: str, value: str, says: str
) -> None:
    (fault,) = faults(settings, {**SECRETS, variable: value})
    assert fault.startswith(f"{variable}: {says}; use a random one")
    assert not value or value not in fault


@each_secret
def test_an_empty_file_is_an_empty_secret(settings: type[Settings], variable: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    variables = {**SECRETS, variable: "", f"{variable}_FILE": str(tmp_path / "secret")}
    (fault,) = faults(settings, variables)
    assert fault.startswith(f"{variable}: is empty")


def test_a_file_that_is_not_there_is_the_one_fault_that_is_told(tmp_path: Path) -> None:
    variables = {**SECRETS, "SERVICE_TOKEN": "", "SERVICE_TOKEN_FILE": str(tmp_path / "nowhere")}
    (fault,) = faults(PublicApiSettings, variables)
    assert fault == f"SERVICE_TOKEN_FILE={tmp_path}/nowhere: cannot be read: No such file or directory"


def test_all_faults_are_told_together() -> None:
    found = faults(PrivateApiSettings, {"RABBIT_PORT": "none", "RABBIT_PASSWORD": "guest"})
    assert [line.partition(":")[0] for line in found] == [
        "RABBIT_PORT",
        "RABBIT_PASSWORD",
        "POSTGRES_PASSWORD",
        "SERVICE_TOKEN",
    ]


@pytest.mark.parametrize("settings", [PrivateApiSettings, JobConsumerSettings, PublicApiSettings])
def test_random_secrets_are_accepted(settings: type[Settings]) -> None:
    assert (
        faults(settings, {name: value for name, value in SECRETS.items() if name.lower() in settings.model_fields})
        == []
    )


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1", "::1"])
def test_a_developers_own_broker_and_database_may_keep_their_defaults(hostname: str) -> None:
    variables = {
        "SERVICE_TOKEN": GOOD,
        "RABBIT_HOSTNAME": hostname,
        "RABBIT_PASSWORD": "guest",
        "POSTGRES_HOSTNAME": hostname,
    }
    assert faults(PrivateApiSettings, variables) == []


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("postgresql+psycopg2://inference:postgres@db.example.org/inference", True),
        ("postgresql+psycopg2://inference:p%61ssword@db.example.org/inference", True),
        (f"postgresql+psycopg2://inference:{GOOD}@db.example.org/inference", False),
        ("postgresql+psycopg2://inference@db.example.org/inference", False),
        ("postgresql+psycopg2://postgres:postgres@127.0.0.1/inference", False),
    ],
)
def test_a_database_url_with_a_well_known_password_is_refused(url: str, is_refused: bool) -> None:
    found = faults(PrivateApiSettings, {"SERVICE_TOKEN": GOOD, "RABBIT_PASSWORD": GOOD, "DATABASE_URL": url})
    assert bool(found) is is_refused
    assert not is_refused or found[0].startswith("DATABASE_URL: holds a well-known password")


KEY = f"is_{'0' * 16}_{'1' * 64}"


def test_a_consumer_shows_its_key_or_the_service_token(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    rabbit = {"RABBIT_PASSWORD": GOOD}
    cases: list[tuple[dict[str, str], tuple[str, str]]] = [
        ({"SERVICE_TOKEN": GOOD}, ("SERVICE_TOKEN", GOOD)),
        ({"CONSUMER_KEY": KEY, "SERVICE_TOKEN": ""}, ("CONSUMER_KEY", KEY)),
        ({"CONSUMER_KEY_FILE": str(tmp_path / "key")}, ("CONSUMER_KEY", KEY)),
    ]
    for variables, (variable, secret) in cases:
        credential = JobConsumerSettings.load({**rabbit, **variables}).credential
        assert (credential.variable, credential.secret) == (variable, secret)
        assert secret not in repr(credential)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "SERVICE_TOKEN: is empty; use a random one, such as `make secrets` writes, or set CONSUMER_KEY instead"),
        ({"CONSUMER_KEY": KEY, "SERVICE_TOKEN": GOOD}, "SERVICE_TOKEN: is set beside CONSUMER_KEY"),
        ({"CONSUMER_KEY": GOOD}, "CONSUMER_KEY: is not a key"),
        ({"CONSUMER_KEY": GOOD, "SERVICE_TOKEN": GOOD}, "CONSUMER_KEY: is not a key"),
        ({"CONSUMER_KEY_FILE": "/nowhere/key"}, "CONSUMER_KEY_FILE=/nowhere/key: cannot be read"),
        ({"SERVICE_TOKEN_FILE": "/nowhere/token"}, "SERVICE_TOKEN_FILE=/nowhere/token: cannot be read"),
    ],
)
def test_a_consumer_that_shows_neither_or_both_does_not_start(variables: dict[str, str], says: str) -> None:
    (fault,) = faults(JobConsumerSettings, {"RABBIT_PASSWORD": GOOD, **variables})
    assert fault.startswith(says)
    assert GOOD not in fault
