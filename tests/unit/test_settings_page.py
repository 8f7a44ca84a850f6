"""`docs/operations/settings.md` lists every variable of every service, and no other."""

import re
from pathlib import Path

import pytest

from grpc_gateway.settings import GatewaySettings
from job_consumer.engines.docker.filter.settings import EngineFilterSettings
from job_consumer.settings import JobConsumerSettings
from kit.settings import Settings
from private_api.settings import PrivateApiSettings
from public_api.settings import PublicApiSettings

PAGE = (Path(__file__).parents[2] / "docs/operations/settings.md").read_text(encoding="utf-8")
SERVICES: dict[str, type[Settings]] = {
    "Private API": PrivateApiSettings,
    "Public API": PublicApiSettings,
    "gRPC gateway": GatewaySettings,
    "Job consumer": JobConsumerSettings,
    "Engine filter": EngineFilterSettings,
}
SHARED = r"LOG_\w+|RABBIT_\w+"
"""Listed once, above the services."""


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> str:
    return "\n".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))


@pytest.mark.parametrize("service", SERVICES)
def test_the_page_lists_every_variable_of_a_service_and_no_other(service: str) -> None:
    listed = re.findall(r"`([A-Z_]+)`", first_cells(section(service)))
    read = [field.upper() for field in SERVICES[service].model_fields]
    assert sorted(listed) == sorted(name for name in read if not re.fullmatch(SHARED, name))


def test_the_page_lists_what_several_services_read() -> None:
    read = {field.upper() for settings in SERVICES.values() for field in settings.model_fields}
    listed = set(re.findall(rf"`({SHARED})`", PAGE.split("\n## ")[0]))
    assert listed == {name for name in read if re.fullmatch(SHARED, name)}
