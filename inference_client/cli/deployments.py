"""`infer deploy`, `infer undeploy` and `infer deployments`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from inference_client.cli.completion import complete_deployment, complete_model
from inference_client.cli.display import Display
from inference_client.cli.output import (
    JsonOption,
    print_blank,
    print_facts,
    print_json,
    print_line,
    print_table,
    show_moment,
)
from inference_client.cli.results import TimeoutOption
from inference_client.cli.server_options import server_options
from inference_client.cli.suggestions import suggesting_models
from inference_client.errors import UnusableInput
from inference_client.schemas import DeploymentView, ReplicaView
from inference_client.serving import ServingSpec
from inference_client.statuses import ReplicaStatus, WireProtocol
from inference_client.units import parse_duration

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[@VERSION]",
        help="The model's id, which means its default version, or one version of it.",
        autocompletion=complete_model,
    ),
]
DeployedArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model's id.", autocompletion=complete_deployment)
]


def add_deployment_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("deploy")(deploy)
    app.command("undeploy")(undeploy)
    app.command("deployments")(show_deployments)


def deploy(
    context: typer.Context,
    model: ModelArgument,
    *,
    serving: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A JSON file with the whole description, instead of the other options."
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port on which the container listens, without TLS.")] = None,
    protocol: Annotated[WireProtocol | None, typer.Option(help="What the container speaks [default: grpc].")] = None,
    minimum: Annotated[
        int | None, typer.Option("--min", help="Replicas kept warm even without calls [default: 0].")
    ] = None,
    maximum: Annotated[int | None, typer.Option("--max", help="The most replicas there may be [default: 1].")] = None,
    prefix: Annotated[str | None, typer.Option(help="Calls to /PREFIX/... go to this deployment.")] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(help="How long after the last call replicas above the minimum end [default: 10m].")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is ready or fails.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep MODEL's default version warm, or that of MODEL@VERSION, to be called over gRPC; or change how it is kept."""
    options = {
        "port": port,
        "protocol": protocol,
        "replicas_min": minimum,
        "replicas_max": max(minimum or 0, 1) if maximum is None and minimum is not None else maximum,
        "prefix": prefix,
        "idle_timeout_s": None if idle_timeout is None else parse_duration(idle_timeout),
    }
    given = {name: value for name, value in options.items() if value is not None}
    description = _read_description(serving, given)
    timeout_s = None if timeout is None else parse_duration(timeout)
    display = Display(quiet=as_json)
    shown = ""

    def show_change(view: DeploymentView) -> None:
        nonlocal shown
        if (text := _describe_view(view)) != shown:
            display.say(text)
        shown = text

    with server_options(context).connect(display) as client, suggesting_models(client, model):
        view = client.deploy(model, description)
        if wait:
            view = client.wait_deployment(view.human_readable_id, timeout_s=timeout_s, on_change=show_change)
    print_json(view) if as_json else print_line(_describe_view(view))


def undeploy(context: typer.Context, model: DeployedArgument, as_json: JsonOption = False) -> None:
    """Stop keeping MODEL warm; its replicas finish their calls and end."""
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, suggesting_models(client, model):
        client.undeploy(model)
    display.say("undeployed")
    if as_json:
        print_json({"human_readable_id": model, "deployed": False})


def show_deployments(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Only this one, with its replicas.", autocompletion=complete_deployment),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what is kept warm, or show one deployment with its replicas."""
    with server_options(context).connect(Display(quiet=as_json)) as client:
        if model is None:
            views = list(client.list_deployments())
        else:
            with suggesting_models(client, model):
                view = client.get_deployment(model)
    if model is None and as_json:
        print_json([view.model_dump(mode="json") for view in views])
    elif model is None:
        print_table(("MODEL", "VERSION", "STATUS", "READY", "CALLS", "DETAIL"), [_row(view) for view in views])
    elif as_json:
        print_json(view)
    else:
        print_facts(_facts(view))
        if view.replicas:
            print_blank()
            header = ("REPLICA", "VERSION", "STATUS", "CALLS", "CONSUMER", "DETAIL")
            print_table(header, [_replica_row(replica) for replica in view.replicas])


def _read_description(file: Path | None, given: dict[str, Any]) -> ServingSpec:
    if file is not None and given:
        raise typer.BadParameter("give --serving or the other options, not both")
    if file is None and "port" not in given:
        raise typer.BadParameter("--port is missing: say where the container listens, or give --serving")
    try:
        members = given if file is None else json.loads(file.read_text())
    except ValueError as error:
        raise UnusableInput(f"{file} is not JSON: {error}") from error
    # Most likely misspelled: the Python client is the way to what only a newer server knows.
    unknown = sorted(members.keys() - ServingSpec.model_fields.keys()) if isinstance(members, dict) else []
    faults = [f"{name}: a description has no such member" for name in unknown]
    try:
        description = ServingSpec.model_validate(members)
    except ValidationError as error:
        faults += [
            f"{'.'.join(map(str, fault['loc'])) or 'the description'}: {fault['msg']}" for fault in error.errors()
        ]
    if faults:
        raise UnusableInput("; ".join(faults))
    return description


def _describe_view(view: DeploymentView) -> str:
    why = f": {_one_line(view.detail)}" if view.detail else ""
    return f"{view.human_readable_id} is {view.status}, {_count_ready(view)} ready{why}"


def _count_ready(view: DeploymentView) -> str:
    statuses = [replica.status for replica in view.replicas]
    live = sum(status is not ReplicaStatus.ENDED for status in statuses)
    return f"{statuses.count(ReplicaStatus.READY)}/{live}"


def _row(view: DeploymentView) -> tuple[str, ...]:
    calls = sum(replica.in_flight for replica in view.replicas)
    detail = _one_line(view.detail)
    return view.human_readable_id, str(view.model_version), str(view.status), _count_ready(view), str(calls), detail


def _replica_row(replica: ReplicaView) -> tuple[str, ...]:
    status = str(replica.status) if replica.reason is None else f"{replica.status}, {replica.reason}"
    consumer, detail = replica.consumer or "", _one_line(replica.detail)
    return replica.uid[:12], str(replica.model_version), status, str(replica.in_flight), consumer, detail


def _facts(view: DeploymentView) -> list[tuple[str, str]]:
    serving, inner = view.serving, view.serving.unrouted_model_names
    facts: list[tuple[str, str]] = [
        ("model", f"{view.human_readable_id}, version {view.model_version}"),
        ("status", str(view.status)),
        ("protocol", f"{serving.protocol}, port {serving.port}"),
        ("replicas", f"{serving.replicas_min} to {serving.replicas_max}, {_count_ready(view)} ready"),
        ("application", ", ".join(serving.applications) or serving.application or view.human_readable_id),
        ("model names", ", ".join(serving.model_names or ([] if inner else [view.human_readable_id])) or "none"),
    ]
    facts += [("names inside", ", ".join(inner))] if inner else []
    facts += [("prefix", f"/{serving.prefix}/")] if serving.prefix else []
    facts += [("owner", view.owner)] if view.owner else []
    facts += [("detail", view.detail)] if view.detail else []
    facts += [("failures", str(view.failures))] if view.failures else []
    facts += [("next start", show_moment(view.next_start_at))] if view.next_start_at else []
    return facts


def _one_line(text: str | None) -> str:
    """A container's own words on one line, fit for a table."""
    return " ".join((text or "").split())
