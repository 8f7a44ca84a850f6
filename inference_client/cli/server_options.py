"""The options before the command: which server is meant, and the client that they make."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from inference_client.cli.display import Display
from inference_client.config import ClientConfig, environment, load_config
from inference_client.config_file import VARIABLES
from inference_client.errors import ServiceUnavailable
from inference_client.sharing import is_here

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

FIRST_CONTACT_S = 1.25
"""A server that is not there is said within two seconds. One packet may be lost: it is sent again after one."""


@dataclass(frozen=True)
class ServerOptions:
    """The options as given; None stands for those left out."""

    server: str | None
    grpc: str | None
    key: str | None
    ca: str | None

    def configure(self, display: Display) -> ClientConfig:
        """The settings to use; warnings are shown on `display`. Raises `UnusableInput`."""
        config = load_config(environment(), server=self.server, grpc=self.grpc, key=self.key, ca=self.ca)
        for warning in config.warnings:
            display.warn(warning)
        return config

    @contextmanager
    def connect(self, display: Display) -> "Iterator[InferenceClient]":
        """A client of the configured server. Raises `UnusableInput`."""
        with connect_to(self.configure(display)) as client:
            yield client


@contextmanager
def connect_to(config: ClientConfig) -> "Iterator[InferenceClient]":
    """A client of the server; if that is not there, the `ServiceUnavailable` also says what to do."""
    # Imported late: the commands are shown without the HTTP client, which takes longest to import.
    from inference_client.client import InferenceClient

    with InferenceClient(
        config.server, key=config.key, verify=config.ca or True, first_contact_s=FIRST_CONTACT_S
    ) as client:
        try:
            yield client
        except ServiceUnavailable as error:
            if client.was_reached:
                raise
            raise ServiceUnavailable(f"{error.detail}\n{_advise(config)}", **error.fields) from error


def _advise(config: ClientConfig) -> str:
    if config.server_source is None:
        named = f"No server was named. Name yours with --server, {VARIABLES['server']} or: infer login"
    else:
        named = f"The address comes from {config.server_source}. Is it right, and does the server run?"
    start = "\nTo start one on this machine: inference-server standalone"
    return named + (start if is_here(config.server) else "")


def server_options(context: typer.Context) -> ServerOptions:
    """The options that stood before this command."""
    options: ServerOptions = context.obj
    return options
