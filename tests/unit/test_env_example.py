"""`.env.example` names every variable there is, and no other."""

import re
from pathlib import Path

from grpc_gateway.settings import GatewaySettings
from job_consumer.settings import JobConsumerSettings
from private_api.settings import PrivateApiSettings
from public_api.settings import PublicApiSettings

ROOT = Path(__file__).parents[2]
SETTINGS = (PrivateApiSettings, PublicApiSettings, GatewaySettings, JobConsumerSettings)
# Read by Compose or Swarm alone: no service sees them.
DEPLOYMENT_ONLY = {
    "COMPOSE_FILE",
    "COMPOSE_PROFILES",
    "COMPOSE_PROJECT_NAME",
    "CONFIG_VERSION",
    "CONNECTIONS_PER_ADDRESS",
    "CONSUMER_KEY_VERSION",
    "DOCKER_SOCKET",
    "GPU_COUNT",
    "HTTPS_PORT",
    "HTTP_PORT",
    "INFERENCE_SERVER_IMAGE",
    "POSTGRES_IMAGE",
    "PYTHON_IMAGE",
    "RABBITMQ_IMAGE",
    "REDHARE_PORT",
    "STORAGE_DIR",
    "TRAEFIK_IMAGE",
}


def documented() -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_every_variable_of_every_service_is_documented_and_no_other() -> None:
    read = {field.upper() for settings in SETTINGS for field in settings.model_fields}
    assert documented() == read | DEPLOYMENT_ONLY


def test_compose_hands_every_variable_of_the_file_on() -> None:
    compose = "".join((ROOT / name).read_text() for name in ("docker-compose.yaml", "compose.redhare.yaml"))
    active = set(re.findall(r"^([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read_by_compose_itself = {"COMPOSE_FILE", "COMPOSE_PROFILES"}
    handed_on = set(re.findall(r"\$\{([A-Z_]+)", compose))
    assert active - read_by_compose_itself <= handed_on


def test_every_default_of_the_file_is_accepted() -> None:
    lines = re.findall(r"^([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    secrets = dict.fromkeys(("SERVICE_TOKEN", "POSTGRES_PASSWORD", "RABBIT_PASSWORD"), "0123456789abcdef" * 2)
    for settings in SETTINGS:
        settings.load({**dict(lines), **secrets})
