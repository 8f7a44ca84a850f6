"""`infer submit`, `wait`, `fetch` and the other commands about tasks."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from contract.schemas import TaskView
from inference_client.delivery import fetch_output, resolve_target, wait_for_end
from inference_client.display import Display, describe, printable
from inference_client.session import JsonOption, print_json, print_table, session_of
from inference_client.units import format_size, parse_duration

UidArgument = Annotated[str, typer.Argument(metavar="UID", help="The task, as `infer submit` printed it.")]
TimeoutOption = Annotated[
    str | None, typer.Option("--timeout", help="Stop waiting after so long, as in 90, 15m or 2h; the task goes on.")
]
ExtractOption = Annotated[bool, typer.Option("--extract", help="Unpack the output into the folder OUT.")]


def add_task_commands(app: typer.Typer) -> None:
    """Hang the commands into the application."""
    commands: dict[str, Callable[..., None]] = {
        "submit": submit,
        "status": show_status,
        "wait": wait,
        "fetch": fetch,
        "logs": show_logs,
        "cancel": cancel,
        "delete": delete,
        "list": list_tasks,
    }
    for name, command in commands.items():
        app.command(name)(command)


def submit(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")],
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="A folder (its content is sent), a .zip (sent as it is), or files."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Wait, and fetch the output to this zip or folder."),
    ] = None,
    wait_: Annotated[bool | None, typer.Option("--wait/--no-wait", help="Wait for the end [default: with -o].")] = None,
    extract: ExtractOption = False,
    timeout: TimeoutOption = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submitting again under the same key gives the same task.")
    ] = None,
    priority: Annotated[
        int, typer.Option(min=-100, max=100, help="Higher ones run first; above 0 is for keys with the scope operate.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Submit a task to MODEL; print its uid, or with -o the path of its output."""
    if out is not None and wait_ is False:
        raise typer.BadParameter("-o waits for the output; leave out --no-wait")
    if extract and out is None:
        raise typer.BadParameter("--extract needs -o")
    timeout_s = None if timeout is None else parse_duration(timeout)
    if out is not None:
        # Before hours of work, not after them.
        resolve_target(out, "", extract=extract)
    display = Display(quiet=as_json)
    with session_of(context).connect(display) as client:
        with display.show_transfer("sent") as on_progress:
            uid = client.submit(
                model, paths, idempotency_key=idempotency_key, priority=priority, on_progress=on_progress
            )
        if out is None and not as_json:
            typer.echo(uid)
        else:
            display.say(f"task {uid}")
        task = wait_for_end(client, display, uid, timeout_s) if wait_ or out is not None else None
        if out is not None:
            stored = fetch_output(client, display, uid, out, extract=extract)
    if as_json:
        facts = {"uid": uid} if task is None else task.model_dump(mode="json")
        print_json(facts if out is None else {**facts, "path": str(stored)})
    elif out is not None:
        typer.echo(str(stored))


def show_status(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Show where a task stands."""
    with session_of(context).connect(Display(quiet=as_json)) as client:
        task = client.status(uid)
    print_json(task) if as_json else print_table(_facts(task))


def wait(context: typer.Context, uid: UidArgument, timeout: TimeoutOption = None, as_json: JsonOption = False) -> None:
    """Wait until a task has ended; the exit code says how."""
    display = Display(quiet=as_json)
    timeout_s = None if timeout is None else parse_duration(timeout)
    with session_of(context).connect(display) as client:
        task = wait_for_end(client, display, uid, timeout_s)
    print_json(task) if as_json else typer.echo(str(task.status))


def fetch(
    context: typer.Context,
    uid: UidArgument,
    out: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="The zip to write, or a folder for <uid>.zip."),
    ] = Path(),
    extract: ExtractOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a finished task's output and print its path."""
    display = Display(quiet=as_json)
    with session_of(context).connect(display) as client:
        stored = fetch_output(client, display, uid, out, extract=extract)
    print_json({"uid": uid, "path": str(stored)}) if as_json else typer.echo(str(stored))


def show_logs(
    context: typer.Context,
    uid: UidArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what the task's container wrote."""
    with session_of(context).connect(Display(quiet=as_json)) as client:
        pieces = client.logs(uid, follow=follow)
        if as_json:
            print_json({"uid": uid, "log": b"".join(pieces).decode(errors="replace")})
            return
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def cancel(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Cancel a task and keep its record."""
    with session_of(context).connect(Display(quiet=as_json)) as client:
        task = client.cancel(uid)
    print_json(task) if as_json else typer.echo(describe(task))


def delete(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Delete a task with its input and output; what runs is cancelled."""
    display = Display(quiet=as_json)
    with session_of(context).connect(display) as client:
        client.delete(uid)
    display.say("deleted")
    if as_json:
        print_json({"uid": uid, "deleted": True})


def list_tasks(context: typer.Context, as_json: JsonOption = False) -> None:
    """List your tasks; needs a key."""
    with session_of(context).connect(Display(quiet=as_json)) as client:
        tasks = list(client.list_tasks())
    if as_json:
        print_json([task.model_dump(mode="json") for task in tasks])
    else:
        rows = [(task.uid, task.human_readable_id, describe(task), _moment(task.created_at)) for task in tasks]
        print_table([("UID", "MODEL", "STATUS", "SUBMITTED"), *rows])


def _facts(task: TaskView) -> list[tuple[str, ...]]:
    facts: list[tuple[str, ...]] = [
        ("uid", task.uid),
        ("model", f"{task.human_readable_id}, version {task.model_version}"),
        ("status", describe(task)),
        ("submitted", _moment(task.created_at)),
    ]
    facts += [("started", _moment(task.started_at))] if task.started_at else []
    facts += [("ended", _moment(task.ended_at))] if task.ended_at else []
    facts += [("exit code", str(task.exit_code))] if task.exit_code is not None else []
    facts += [("detail", printable(task.detail))] if task.detail else []
    facts += [("output", format_size(task.output.size_bytes))] if task.output else []
    return facts


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
