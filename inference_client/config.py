"""Where the server is and what key opens it: flags, then the environment, then a file, then the default."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_client.door import Door
from inference_client.errors import UnusableInput

DEFAULT_SERVER = "http://127.0.0.1:8000"
VARIABLES = {
    "server": "INFERENCE_SERVER_URL",
    "grpc": "INFERENCE_SERVER_GRPC",
    "key": "INFERENCE_SERVER_KEY",
    "ca": "INFERENCE_SERVER_CA",
}


@dataclass(frozen=True)
class ClientConfig:
    """Settings of one `infer` call. `warnings` are for the user, not for a program."""

    server: str
    key: str | None = field(repr=False)
    ca: Path | None
    grpc: str | None = None
    """Where the gRPC door is; None: beside the server."""
    door_key: str | None = field(default=None, repr=False)
    """The key as the gRPC door gets it: None where it belongs to another door."""
    warnings: tuple[str, ...] = ()

    def door(self) -> Door:
        """The gRPC door. Raises `UnusableInput`."""
        return Door.parse(self.grpc) if self.grpc else Door.beside(self.server)


def config_path(environment: Mapping[str, str]) -> Path:
    """The file that is read if it exists."""
    base = Path(environment.get("XDG_CONFIG_HOME", ""))
    # The XDG rules ignore a relative path.
    if not base.is_absolute():
        base = Path.home() / ".config"
    return base / "inference-server" / "config.toml"


def load_config(
    environment: Mapping[str, str],
    *,
    server: str | None = None,
    grpc: str | None = None,
    key: str | None = None,
    ca: str | None = None,
) -> ClientConfig:
    """Settle each value by the order above; empty means unset. Raises `UnusableInput` if the file cannot be used."""
    path = config_path(environment)
    stored, warnings = _read_file(path)
    flags = {"server": server, "grpc": grpc, "key": key, "ca": ca}
    given = {name: flags[name] or environment.get(variable) or None for name, variable in VARIABLES.items()}
    chosen_server = given["server"] or stored.get("server") or DEFAULT_SERVER
    is_stored_server = stored.get("server") in (None, "", chosen_server)
    # The file's door is that of the file's server.
    chosen_grpc = given["grpc"] or (stored.get("grpc") if is_stored_server else None) or None
    chosen_key = given["key"]
    if chosen_key is None and stored.get("key"):
        if is_stored_server:
            chosen_key = stored["key"]
        else:
            # A key is a secret between the user and one server.
            warnings.append(f"the key in {path} belongs to {stored['server']} and is not sent to {chosen_server}")
    is_foreign_door = given["grpc"] is not None and stored.get("server") and given["grpc"] != stored.get("grpc")
    chosen_ca = given["ca"] or stored.get("ca")
    return ClientConfig(
        server=chosen_server,
        key=chosen_key,
        ca=Path(chosen_ca).expanduser() if chosen_ca else None,
        grpc=chosen_grpc,
        door_key=given["key"] if is_foreign_door else chosen_key,
        warnings=tuple(warnings),
    )


def _read_file(path: Path) -> tuple[dict[str, str], list[str]]:
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        mode = path.stat().st_mode
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        # Never the file's text: it may hold the key.
        reason = error.strerror if isinstance(error, OSError) else "it is not TOML"
        raise UnusableInput(f"{path} cannot be read: {reason}") from error
    for name, value in values.items():
        if name not in VARIABLES or not isinstance(value, str):
            raise UnusableInput(f"{path}: {name!r} is not one of the texts {', '.join(VARIABLES)}")
    warnings = []
    if values.get("key") and os.name == "posix" and mode & 0o077:
        warnings.append(f"other users can read the key in {path}; run: chmod 600 {path}")
    return values, warnings
