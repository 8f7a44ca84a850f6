"""`python -m public_api`: the HTTP door as a process of its own."""

import sys

from contract.access import DoorPolicy
from kit.http_server import serve
from kit.service_start import start_service
from public_api.app import create_app
from public_api.settings import PublicApiSettings


def main() -> int:
    """Run until a signal. Returns the exit code: 2 for faulty settings."""
    return start_service("public-api", PublicApiSettings, _run)


def _run(settings: PublicApiSettings) -> int:
    app = create_app(
        private_url=settings.private_api_url,
        service_token=settings.service_token.get_secret_value(),
        policy=DoorPolicy(requires_key=settings.require_api_key, opens_models=settings.allow_public_post_model),
        cors_origins=settings.cors_origins,
        hosts=[name for name in (settings.proxy_domain.lower(), *settings.allowed_hosts) if name],
        behind_proxy=True,
    )
    serve(app, settings.public_api_host, settings.public_api_port, is_door=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
