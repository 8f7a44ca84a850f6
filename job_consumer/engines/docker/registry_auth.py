"""The logins for private registries, as `docker login` writes them. Read anew for each pull, and never told."""

import json
import shutil
from pathlib import Path

import docker
from docker.auth import AuthConfig
from docker.errors import DockerException

from job_consumer.engines import EngineUnavailable

_VARIABLE = "REGISTRY_AUTH_FILE"


def load_registry_auth(client: docker.APIClient, path: Path | None) -> None:
    """Have the client show what is stored now: in the file at `path`, else where Docker's own command looks.

    Raises `EngineUnavailable` if that file is there and cannot be used.
    """
    if path is None or not path.exists():
        client.reload_config()
        return
    # docker-py takes a file that it cannot read for one without logins.
    fault = find_fault(path)
    if fault is not None:
        raise EngineUnavailable(f"images cannot be pulled with the consumer's {_VARIABLE}: {fault}")
    client.reload_config(str(path))


def find_fault(path: Path) -> str | None:
    """Why a file of logins cannot be used, without a word of what it says."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return "it is not what `docker login` writes"
    try:
        config = AuthConfig.load_config(None, content)
    except (DockerException, ValueError, TypeError, AttributeError):
        return "an entry of it is no login as `docker login` writes it"
    stores = {config.creds_store, *config.cred_helpers.values()} - {None}
    missing = sorted(name for name in stores if shutil.which(f"docker-credential-{name}") is None)
    if missing:
        return f"it leaves the logins to a credential store that is not here: docker-credential-{missing[0]}"
    return None
