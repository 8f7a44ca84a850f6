"""`infer login` and `infer logout`: the server and the key that all other commands use."""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_json
from inference_client.cli.server_options import connect_to, server_options
from inference_client.config import ClientConfig, config_path, environment
from inference_client.config_file import VARIABLES, read_values, write_values
from inference_client.errors import UnusableInput


def login(
    context: typer.Context,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Read the key from stdin instead of asking for it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask for a server and a key, check them against the server, and store them for you alone.

    The options before the command are not asked for, as in: infer --server https://inference.example.org login
    """
    display = Display(quiet=as_json)
    options = server_options(context)
    if not display.can_ask and not key_stdin and options.key is None:
        raise UnusableInput("without a terminal nobody can be asked; give the key on stdin: infer login --key-stdin")
    config = options.configure(display)
    asked = config.server
    if options.server is None and not key_stdin and display.can_ask:
        # A password in the URL, for a proxy, is not for the screen.
        shown = re.sub("//[^/@]*@", "//", config.server)
        asked = typer.prompt(f"Server [{shown}]", default=config.server, show_default=False, err=True).strip()
    key = options.key or _read_key(from_stdin=key_stdin)
    source = config.server_source if asked == config.server else "your answer"
    address = asked.rstrip("/")
    server = _check(replace(config, server=address, server_source=source, key=key))
    path = config_path(environment())
    write_values(path, _changes(address, key, grpc=options.grpc, ca=config.ca, stored=read_values(path)))
    _warn_of_variables(display, address, key)
    display.say(f"logged in to {server}" if key else f"{server} is used from now on, without a key")
    display.say(f"stored in {path}, for you alone")
    if as_json:
        print_json({"server": server, "has_key": key is not None, "path": str(path)})


def logout(context: typer.Context, as_json: JsonOption = False) -> None:
    """Remove the stored key; which server is meant stays stored."""
    path = config_path(environment())
    stored = read_values(path)
    if had_key := bool(stored.get("key")):
        write_values(path, {"key": None})
    display = Display(quiet=as_json)
    display.say(f"the key was removed from {path}" if had_key else f"there is no key in {path}")
    if environment().get(VARIABLES["key"]):
        display.warn(f"{VARIABLES['key']} is set; its key is still used")
    if as_json:
        print_json({"removed": had_key, "path": str(path)})


def _read_key(*, from_stdin: bool) -> str | None:
    if from_stdin:
        key = sys.stdin.readline().strip()
        if not key:
            raise UnusableInput("there is no key on stdin")
        return key
    typed: str = typer.prompt(
        "Key (Enter if the server wants none)", default="", show_default=False, hide_input=True, err=True
    )
    return typed.strip() or None


def _check(config: ClientConfig) -> str:
    """The server's URL without a password, once it took the key. Raises what the server answers otherwise."""
    with connect_to(config) as client:
        # Any page will do. The list of tasks wants a key; that of models is also for callers without one.
        next(client.list_models() if config.key is None else client.list_tasks(), None)
        return client.server


def _changes(
    server: str, key: str | None, *, grpc: str | None, ca: Path | None, stored: Mapping[str, str]
) -> dict[str, str | None]:
    changes = {"server": server, "key": key}
    # A stored gRPC door belongs to the server that was stored with it.
    if grpc is not None or stored.get("server") != server:
        changes["grpc"] = grpc
    if ca is not None:
        changes["ca"] = str(ca.resolve())
    return changes


def _warn_of_variables(display: Display, server: str, key: str | None) -> None:
    for name, value in (("server", server), ("key", key)):
        variable = VARIABLES[name]
        if environment().get(variable) not in (None, "", value):
            display.warn(f"{variable} is set and wins over what was stored; unset it")
