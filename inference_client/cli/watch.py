"""`infer watch`: what happens on the server, as it happens."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import print_line, show_moment, show_uid
from inference_client.cli.server_options import server_options
from inference_client.cli.uids import find_uid
from inference_client.event_schemas import DeploymentEvent, ProgressEvent, ServerEvent, TaskEvent, Told
from inference_client.overview_schemas import ConsumerView
from inference_client.statuses import EventType
from inference_client.wording import describe_progress


def watch(
    context: typer.Context,
    *,
    uids: Annotated[
        list[str] | None, typer.Argument(metavar="[UID]...", help="Only these tasks.", show_default=False)
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help=f"Only this: {', '.join(EventType)}; may be repeated."),
    ] = None,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="ID", help="First what happened to tasks after this event's last_id.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each event.")] = False,
) -> None:
    """Show what happens on the server, as it happens, until Ctrl-C: tasks, runs, consumers, deployments, the queue."""
    wanted = types or ([EventType.TASK, EventType.PROGRESS] if uids else [])
    with server_options(context).connect(Display(quiet=as_json)) as client:
        whole = [find_uid(client, uid) for uid in uids or ()]
        for event in client.watch(types=wanted, uids=whole, after=after):
            print_line(_as_json(event) if as_json else _as_text(event))


def _as_json(event: ServerEvent) -> str:
    told = {"type": event.type, "last_id": event.last_id, "data": event.data.model_dump(mode="json")}
    return json.dumps(told)


def _as_text(event: ServerEvent) -> str:
    data = event.data
    at = data.at if isinstance(data, TaskEvent) else datetime.now(UTC)
    return f"{show_moment(at)}  {event.type:10}  {_describe(data)}"


def _describe(data: Told) -> str:
    if isinstance(data, TaskEvent):
        why = f", {data.reason}" if data.reason else ""
        return f"{show_uid(data.uid)}  {data.human_readable_id}  {data.new_status}{why}"
    if isinstance(data, ProgressEvent):
        said = describe_progress(data.progress, data.progress_text)
        return f"{show_uid(data.uid)}  {data.human_readable_id}  {said}"
    if isinstance(data, ConsumerView):
        return f"{data.name}  {data.status}{_because(data.detail)}"
    if isinstance(data, DeploymentEvent):
        view = data.deployment
        stands = "undeployed" if view is None else f"{view.status}{_because(view.detail)}"
        return f"{data.human_readable_id}  {stands}"
    counts = (f"{lane.kind}: {lane.queued} waiting, {lane.held} held, {lane.free} free" for lane in data.lanes)
    return "; ".join(counts)


def _because(detail: str | None) -> str:
    return f": {detail}" if detail else ""
