"""`infer rerun`: a task again, with the input that the server still has."""

from enum import StrEnum
from typing import Annotated

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_json, print_line
from inference_client.cli.results import PriorityOption, TimeoutOption, wait_for_end
from inference_client.cli.server_options import server_options
from inference_client.cli.uids import UidArgument, named_task, remember
from inference_client.units import parse_duration


class Version(StrEnum):
    """Which version of the model runs."""

    SAME = "same"
    DEFAULT = "default"


def rerun(
    context: typer.Context,
    uid: UidArgument,
    *,
    version: Annotated[
        Version, typer.Option(help="The model's version: the same, or the default that a new task gets.")
    ] = Version.SAME,
    wait_: Annotated[bool, typer.Option("--wait", help="Wait for the end.")] = False,
    timeout: TimeoutOption = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same rerun again under this key gives the same task.")
    ] = None,
    priority: PriorityOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a task's input again, without sending it; print the uid of the new task."""
    timeout_s = None if timeout is None else parse_duration(timeout)
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, named_task(client, uid) as whole:
        model = client.status(whole).human_readable_id
        new_uid = client.rerun(whole, version=version, priority=priority, idempotency_key=idempotency_key)
        remember(display, client, new_uid, model)
        if not as_json:
            print_line(new_uid)
        task = wait_for_end(client, display, new_uid, timeout_s) if wait_ else None
    if as_json:
        print_json({"uid": new_uid, "rerun_of": whole} if task is None else task)
