"""Makes what the other services of the Compose stack need before they start: secrets, a certificate, the data folder.

Runs as root in the one-shot service `init`, at every `docker compose up`. What an operator gives comes first, then what
is there already; only what is missing or of no use is made. Each folder below `made` is a volume that only its readers
mount, so that no service sees a secret that it does not need.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import run

from kit.settings import Settings, SettingsError
from operations.checks.certificate import check_certificate
from operations.findings import Level
from operations.rabbitmq_user import CONFIGURATION, DEFINITIONS, configuration, definitions
from operations.secrets import SecretsError, configured_password, find_faults, keep_secret, write_whole

SERVICE_UID = 10001
"""Who the services are in their containers; the others that read secrets are root."""
_SECRETS = {"service_token": "service", "postgres_password": "postgres", "rabbit_password": "rabbitmq"}
_CERTIFICATE_DAYS = 825


class CertificateError(Exception):
    """No certificate can be made. The text says why."""


class InitSettings(Settings):
    """The variables of `init`."""

    proxy_domain: str = "localhost"
    rabbit_user: str = "inference"
    rabbit_vhost: str = "/"


@dataclass(frozen=True)
class Folders:
    """Where `init` finds and leaves everything."""

    secrets: Path = Path("/given/secrets")
    """The operator's; may be empty."""
    certificates: Path = Path("/given/certs")
    """The operator's; may be empty."""
    made: Path = Path("/made")
    data: Path = Path("/data")
    login: Path = Path("/login")
    """Where `migrate` leaves how the private API logs in to the database."""
    owner: int = SERVICE_UID
    """Whose everything made is, but the certificate."""


def prepare(folders: Folders, settings: InitSettings) -> Iterator[str]:
    """Make what is missing; yields what was done, one line each. Raises `SecretsError`, `CertificateError`, `OSError`.

    Nobody else on this host can read a secret or the certificate's key.
    """
    faults = find_faults(folders.secrets)
    if faults:
        raise SecretsError("\n".join(f"{fault}; correct or remove this file in ./secrets" for fault in faults))
    for name, reader in _SECRETS.items():
        yield from _prepare_secret(folders, name, folders.made / reader)
    _prepare_rabbitmq(folders, settings)
    yield from _prepare_certificate(folders, settings.proxy_domain)
    for folder in (folders.data, folders.login):
        if _is_fresh(folder):
            _give(folder, folders.owner)


def _prepare_secret(folders: Folders, name: str, folder: Path) -> Iterator[str]:
    given = _read(folders.secrets / name)
    if name == "rabbit_password" and given is None:
        given = configured_password(folders.secrets / "rabbitmq.conf")
    _give(folder, folders.owner)
    if keep_secret(folder / name, given, owner=folders.owner):
        yield f"{'took' if given else 'made'} {name}"


def _prepare_rabbitmq(folders: Folders, settings: InitSettings) -> None:
    folder = folders.made / "rabbitmq"
    password = (folder / "rabbit_password").read_text().strip()
    users = definitions(settings.rabbit_user, password, settings.rabbit_vhost)
    write_whole(folder / DEFINITIONS, users, owner=folders.owner)
    write_whole(
        folder / CONFIGURATION, configuration(_read(folders.secrets / CONFIGURATION) or ""), owner=folders.owner
    )


def _prepare_certificate(folders: Folders, domain: str) -> Iterator[str]:
    """Make a certificate unless the operator has one, or the one that was made before is still good for the domain."""
    made = folders.made / "certificate"
    if (folders.certificates / "server.crt").exists() or check_certificate(made, domain).level is not Level.PROBLEM:
        return
    if ":" in domain:
        raise CertificateError(f"PROXY_DOMAIN={domain}: Traefik knows no IPv6 address; give a name, or an IPv4 address")
    for name in ("server.key", "server.crt"):
        (made / name).unlink(missing_ok=True)
    command = ["generate_self_signed_certs", domain, str(_CERTIFICATE_DAYS), str(made)]
    done = run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CertificateError(f"PROXY_DOMAIN={domain}: {done.stderr.strip()}")
    yield f"made a self-signed certificate for {domain}"


def _is_fresh(folder: Path) -> bool:
    """Whether it is as Docker makes a missing one: root's, and empty."""
    return folder.stat().st_uid == 0 and not any(folder.iterdir())


def _give(folder: Path, owner: int) -> None:
    os.chown(folder, owner, owner)
    folder.chmod(0o700)


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None


def main() -> int:
    """Run; returns the exit code."""
    try:
        for line in prepare(Folders(), InitSettings.load()):
            print(line)  # noqa: T201
    except (SettingsError, SecretsError, CertificateError, OSError) as error:
        print(f"init: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
