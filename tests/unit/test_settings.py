"""Settings are read once, whole, and without telling a secret."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, SecretStr

from contract.broker.rabbitmq.settings import BrokerSettings
from contract.quotas import Quota
from kit.settings import Duration, Settings, SettingsError
from private_api.settings import PrivateApiSettings

SECRETS = {
    "SERVICE_TOKEN": "vFz8rWq2-the-service-token",
    "POSTGRES_PASSWORD": "xK4m9TqL-the-database",
    "RABBIT_PASSWORD": "hB7c2NwP-the-broker",
}


class Example(Settings):
    required: int
    port: Annotated[int, Field(ge=1)] = 80
    pause: Duration = timedelta(seconds=5)
    password: SecretStr = SecretStr("")


def faults_of(variables: dict[str, str], kind: type[Settings] = Example) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        kind.load(variables)
    return str(caught.value).splitlines()


def test_variables_are_the_fields_in_capitals() -> None:
    settings = Example.load({"REQUIRED": "7", "PORT": "81", "PAUSE": "2m", "PASSWORD": "secret", "OTHER": "ignored"})
    assert (settings.required, settings.port, settings.pause) == (7, 81, timedelta(minutes=2))
    assert settings.password.get_secret_value() == "secret"


def test_an_empty_variable_is_an_unset_one() -> None:
    assert Example.load({"REQUIRED": "7", "PORT": "", "PAUSE": "", "PASSWORD": ""}) == Example(required=7)
    (fault,) = faults_of({"REQUIRED": ""})
    assert fault.startswith("REQUIRED: ")


def test_all_faults_are_told_together_each_with_its_variable() -> None:
    faults = faults_of({"PORT": "0", "PAUSE": "5", "LOG_LEVEL": "LOUD", "PASSWORD_FILE": "/nowhere/at/all"})
    assert [fault.partition(":")[0].partition("=")[0] for fault in sorted(faults)] == [
        "LOG_LEVEL",
        "PASSWORD_FILE",
        "PAUSE",
        "PORT",
        "REQUIRED",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43200), ("30d", 2592000), ("0.5s", 0.5), (" 2 m ", 120)]
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert Example.load({"REQUIRED": "1", "PAUSE": text}).pause.total_seconds() == seconds


@pytest.mark.parametrize("text", ["5", "5 minutes", "-5s", "m", "1h30m"])
def test_a_duration_without_a_unit_is_refused_with_an_example(text: str) -> None:
    (fault,) = faults_of({"REQUIRED": "1", "PAUSE": text})
    assert fault.startswith("PAUSE: ")
    assert "30d" in fault


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    variables = {"REQUIRED": "1", "PASSWORD_FILE": str(tmp_path / "password")}
    assert Example.load(variables).password.get_secret_value() == "from a file"
    # What is said outright goes before what is in a file.
    assert Example.load({**variables, "PASSWORD": "outright"}).password.get_secret_value() == "outright"


def test_only_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("81")
    assert Example.load({"REQUIRED": "1", "PORT_FILE": str(tmp_path / "port")}).port == 80


def test_an_optional_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("sqlite:///x")
    settings = PrivateApiSettings.load({**SECRETS, "DATABASE_URL_FILE": str(tmp_path / "url")})
    assert settings.effective_database_url == "sqlite:///x"


def test_no_text_about_settings_holds_a_secret() -> None:
    settings = PrivateApiSettings.load(SECRETS)
    text = f"{settings!r} {settings} {settings.model_dump_json()}"
    faults = faults_of({**SECRETS, "SERVICE_TOKEN": "too-short", "KEEP_FINISHED_FOR": "5"}, PrivateApiSettings)
    assert len(faults) == 2
    for secret in (*SECRETS.values(), "too-short"):
        assert secret not in f"{text} {faults}"


def test_settings_cannot_change_once_they_are_read() -> None:
    settings = Example.load({"REQUIRED": "1"})
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 81


def test_passwords_may_hold_any_character() -> None:
    password, quoted = "p@ss/w:rd#% and more of it", "p%40ss%2Fw%3Ard%23%25%20and%20more%20of%20it"
    settings = PrivateApiSettings.load({**SECRETS, "POSTGRES_PASSWORD": password})
    assert f"{quoted}@postgres:5432/inference" in settings.effective_database_url
    broker = BrokerSettings.load({"RABBIT_PASSWORD": password, "RABBIT_VHOST": "a/b"})
    assert broker.broker_url == f"amqp://inference:{quoted}@rabbitmq:5672/a%2Fb"


def test_runtimes_are_names() -> None:
    assert PrivateApiSettings.load(SECRETS).model_runtimes == ()
    assert PrivateApiSettings.load({**SECRETS, "MODEL_RUNTIMES": "runsc, kata"}).model_runtimes == ("runsc", "kata")
    (fault,) = faults_of({**SECRETS, "MODEL_RUNTIMES": "../runsc"}, PrivateApiSettings)
    assert fault == "MODEL_RUNTIMES: '../runsc' is no name of a runtime, as in runsc"


def test_a_quota_is_a_number_its_generous_default_or_off() -> None:
    usual = PrivateApiSettings.load(SECRETS).quotas
    assert usual == {
        Quota.QUEUED: 10_000,
        Quota.RUNNING: 256,
        Quota.STORED: 10 * 1024**4,
        Quota.DAILY: 2 * 1024**4,
        Quota.UPLOADS: 64,
        Quota.REQUESTS: 1000,
    }
    given = {"QUOTA_QUEUED_TASKS": "20", "QUOTA_RUNNING_TASKS": "off", "QUOTA_STORED_BYTES": "0", "QUOTA_UPLOADS": ""}
    assert PrivateApiSettings.load({**SECRETS, **given}).quotas == {
        **usual,
        Quota.QUEUED: 20,
        Quota.RUNNING: None,
        Quota.STORED: None,
    }
    wrong = {"QUOTA_QUEUED_TASKS": "-1", "QUOTA_DAILY_BYTES": "2TiB", "QUOTA_UPLOADS": "many"}
    faults = faults_of({**SECRETS, **wrong}, PrivateApiSettings)
    assert faults == [f"{name}: a limit is a whole number from 1 up, or off for any number" for name in wrong]
