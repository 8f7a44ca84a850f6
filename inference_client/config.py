"""Where the server is and which key to send: flags first, then the environment, a file, the default.

Nothing else in this package reads the environment.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference_client.config_file import VARIABLES, is_exposed, read_values
from inference_client.grpc_endpoint import GrpcEndpoint

DEFAULT_SERVER = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class ClientConfig:
    """The settings of one run of `infer`. `warnings` are for the user, not for a program."""

    server: str
    key: str | None = field(repr=False)
    ca: Path | None
    server_source: str | None = None
    """The option, variable or file that names the server; None if it is the default."""
    grpc: str | None = None
    """Address of the gRPC door, if it is not the default for the server."""
    grpc_key: str | None = field(default=None, repr=False)
    """The key to send to the gRPC door: None if the stored key belongs to another one."""
    warnings: tuple[str, ...] = ()

    def grpc_endpoint(self) -> GrpcEndpoint:
        """Where live calls go. Raises `UnusableInput`."""
        return GrpcEndpoint.parse(self.grpc) if self.grpc else GrpcEndpoint.beside(self.server)


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ


def config_path(environment: Mapping[str, str]) -> Path:
    """Where the settings file is, if there is one."""
    return _user_folder(environment, "XDG_CONFIG_HOME", ".config") / "config.toml"


def submissions_path(environment: Mapping[str, str]) -> Path:
    """Where `infer` remembers which tasks were submitted from this machine."""
    return _user_folder(environment, "XDG_STATE_HOME", ".local/state") / "tasks.jsonl"


def _user_folder(environment: Mapping[str, str], variable: str, default: str) -> Path:
    base = Path(environment.get(variable, ""))
    # The XDG specification says to ignore a relative path.
    return (base if base.is_absolute() else Path.home() / default) / "inference-server"


def load_config(
    environment: Mapping[str, str],
    *,
    server: str | None = None,
    grpc: str | None = None,
    key: str | None = None,
    ca: str | None = None,
) -> ClientConfig:
    """Take each value from the first place that has it; empty means unset. Raises `UnusableInput` for a faulty file."""
    path = config_path(environment)
    stored = read_values(path)
    warnings = []
    if stored.get("key") and is_exposed(path):
        warnings.append(f"other users can read the key in {path}; run: chmod 600 {path}")
    flags = {"server": server, "grpc": grpc, "key": key, "ca": ca}
    given = {name: flags[name] or environment.get(variable) or None for name, variable in VARIABLES.items()}
    sources = (
        (flags["server"], "--server"),
        (environment.get(VARIABLES["server"]), VARIABLES["server"]),
        (stored.get("server"), str(path)),
    )
    chosen_server = given["server"] or stored.get("server") or DEFAULT_SERVER
    is_stored_server = stored.get("server") in (None, "", chosen_server)
    # The file's gRPC address belongs to the file's server.
    chosen_grpc = given["grpc"] or (stored.get("grpc") if is_stored_server else None) or None
    chosen_key = given["key"]
    if chosen_key is None and stored.get("key"):
        if is_stored_server:
            chosen_key = stored["key"]
        else:
            # A key is a secret between the user and one server.
            warnings.append(f"the key in {path} belongs to {stored['server']} and is not sent to {chosen_server}")
    is_foreign_endpoint = given["grpc"] is not None and stored.get("server") and given["grpc"] != stored.get("grpc")
    chosen_ca = given["ca"] or stored.get("ca")
    return ClientConfig(
        server=chosen_server,
        server_source=next((source for value, source in sources if value), None),
        key=chosen_key,
        ca=Path(chosen_ca).expanduser() if chosen_ca else None,
        grpc=chosen_grpc,
        grpc_key=given["key"] if is_foreign_endpoint else chosen_key,
        warnings=tuple(warnings),
    )
