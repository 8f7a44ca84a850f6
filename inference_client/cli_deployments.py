"""`infer deploy`, `infer undeploy` and `infer deployments`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from contract.deployments import DeploymentView, ReplicaStatus, ReplicaView
from contract.serving import Serving, WireProtocol
from inference_client.cli_tasks import TimeoutOption
from inference_client.display import Display, printable
from inference_client.errors import UnusableInput
from inference_client.session import JsonOption, print_json, print_table, session_of
from inference_client.units import parse_duration

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")]


def add_deployment_commands(app: typer.Typer) -> None:
    """Hang the commands into the application."""
    app.command("deploy")(deploy)
    app.command("undeploy")(undeploy)
    app.command("deployments")(show_deployments)


def deploy(
    context: typer.Context,
    model: ModelArgument,
    *,
    serving: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A JSON file with the whole description, in place of the rest."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Where the container listens, in plain text.")] = None,
    protocol: Annotated[WireProtocol | None, typer.Option(help="What the container speaks [default: grpc].")] = None,
    minimum: Annotated[int | None, typer.Option("--min", help="Replicas kept warm without calls [default: 0].")] = None,
    maximum: Annotated[int | None, typer.Option("--max", help="Replicas at most [default: 1].")] = None,
    prefix: Annotated[str | None, typer.Option(help="Calls to /PREFIX/... go to this deployment.")] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(help="Replicas above the minimum end so long after the last call [default: 10m].")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is ready, or fails.")] = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep MODEL's newest version warm, to be called over gRPC. Again: changes how it is kept warm."""
    options = {
        "port": port,
        "protocol": protocol,
        "replicas_min": minimum,
        "replicas_max": max(minimum or 0, 1) if maximum is None and minimum is not None else maximum,
        "prefix": prefix,
        "idle_timeout_s": None if idle_timeout is None else parse_duration(idle_timeout),
    }
    given = {name: value for name, value in options.items() if value is not None}
    description = _describe(serving, given)
    timeout_s = None if timeout is None else parse_duration(timeout)
    display = Display(quiet=as_json)
    told = ""

    def tell(view: DeploymentView) -> None:
        nonlocal told
        if (text := _tell(view)) != told:
            display.say(text)
        told = text

    with session_of(context).connect(display) as client:
        view = client.deploy(model, description)
        if wait:
            view = client.wait_deployment(model, timeout_s=timeout_s, on_change=tell)
    print_json(view) if as_json else typer.echo(_tell(view))


def undeploy(context: typer.Context, model: ModelArgument, as_json: JsonOption = False) -> None:
    """Keep MODEL warm no longer; its replicas finish their calls and end."""
    display = Display(quiet=as_json)
    with session_of(context).connect(display) as client:
        client.undeploy(model)
    display.say("undeployed")
    if as_json:
        print_json({"human_readable_id": model, "deployed": False})


def show_deployments(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this one, with its replicas.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what is kept warm, or show one deployment with its replicas."""
    with session_of(context).connect(Display(quiet=as_json)) as client:
        if model is None:
            views = list(client.list_deployments())
        else:
            view = client.get_deployment(model)
    if model is None and as_json:
        print_json([view.model_dump(mode="json") for view in views])
    elif model is None:
        print_table([("MODEL", "VERSION", "STATUS", "READY", "CALLS", "DETAIL"), *map(_row, views)])
    elif as_json:
        print_json(view)
    else:
        print_table(_facts(view))
        if view.replicas:
            typer.echo()
            header = ("REPLICA", "VERSION", "STATUS", "CALLS", "CONSUMER", "DETAIL")
            print_table([header, *map(_replica_row, view.replicas)])


def _describe(file: Path | None, given: dict[str, Any]) -> Serving:
    if file is not None and given:
        raise typer.BadParameter("give --serving or the other options, not both")
    if file is None and "port" not in given:
        raise typer.BadParameter("--port is missing: where does the container listen?")
    try:
        return Serving.model_validate(given if file is None else json.loads(file.read_text()))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'the description'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise UnusableInput(faults) from error
    except ValueError as error:
        raise UnusableInput(f"{file} is not JSON: {error}") from error


def _tell(view: DeploymentView) -> str:
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


def _facts(view: DeploymentView) -> list[tuple[str, ...]]:
    serving = view.serving
    facts: list[tuple[str, ...]] = [
        ("model", f"{view.human_readable_id}, version {view.model_version}"),
        ("status", str(view.status)),
        ("protocol", f"{serving.protocol}, port {serving.port}"),
        ("replicas", f"{serving.replicas_min} to {serving.replicas_max}, {_count_ready(view)} ready"),
        ("application", serving.application or view.human_readable_id),
        ("model names", ", ".join(serving.model_names or [view.human_readable_id])),
    ]
    facts += [("prefix", f"/{serving.prefix}/")] if serving.prefix else []
    facts += [("owner", view.owner)] if view.owner else []
    facts += [("detail", printable(view.detail))] if view.detail else []
    facts += [("failures", str(view.failures))] if view.failures else []
    facts += [("next start", view.next_start_at.isoformat(timespec="seconds"))] if view.next_start_at else []
    return facts


def _one_line(text: str | None) -> str:
    """What a container wrote, fit for a table."""
    return printable(" ".join((text or "").split()))
