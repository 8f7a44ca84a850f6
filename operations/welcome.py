"""`inference-server welcome`: says where the server is and, once, the first admin key of a server that requires keys.

Runs where the private API runs, with its variables. Each function imports what it needs itself, as the commands do.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from contract.access import Scope
from kit.settings import Settings, SettingsError, Switch

if TYPE_CHECKING:
    from private_api.database import Database

FIRST_OWNER = "admin"


class DoorSettings(Settings):
    """How the door is reached, and by whom."""

    proxy_domain: str = "localhost"
    https_port: Annotated[str, Field(pattern=r"^(.*:)?\d{1,5}$")] = "443"
    """The host's port; an address of the host may come before it."""
    require_api_key: Switch = False

    @property
    def url(self) -> str:
        """Where the HTTP door is."""
        port = self.https_port.rpartition(":")[2]
        return f"https://{self.proxy_domain}" + ("" if port == "443" else f":{port}")

    @property
    def grpc_address(self) -> str:
        """Where the gRPC door is."""
        return f"grpc.{self.proxy_domain}:{self.https_port.rpartition(':')[2]}"


def first_key(database: "Database") -> str | None:
    """A key for everything, if no key for everything was ever made; it is not shown again."""
    from private_api.keys import create_key, list_keys

    if any(Scope.ADMIN in key.scopes for key in list_keys(database)):
        return None
    return create_key(database, owner=FIRST_OWNER, scopes=[Scope.ADMIN], lifetime=None)


def report() -> int:
    """Print it all, the key in a line of its own at the end. Returns the exit code: 2 for faulty variables."""
    from operations.database import open_database

    try:
        door = DoorSettings.load()
    except SettingsError as error:
        typer.echo(f"inference-server: {error}", err=True)
        return 2
    with open_database(None) as database:
        for line in welcome(door, database):
            typer.echo(line)
    return 0


def welcome(door: DoorSettings, database: "Database") -> Iterator[str]:
    """The lines to print; makes the key if there is one to make."""
    yield f"InferenceServer is ready at {door.url}; docs at {door.url}/docs"
    yield f"Live calls over gRPC are taken at {door.grpc_address}"
    if not door.require_api_key:
        yield "Anybody who reaches it may use it; REQUIRE_API_KEY=1 in .env requires keys."
        return
    key = first_key(database)
    if key is None:
        yield "Keys are required; `inference-server keys create` makes more of them."
    else:
        yield "Keys are required. This is the first, for an admin; keep it safe, it is not shown again:"
        yield key
