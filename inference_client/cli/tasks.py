"""`infer submit`, `wait`, `fetch` and the other commands that are about tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from inference_client.cli.batches import LabelOption, cancel_label, show_status_of_label, submit_each
from inference_client.cli.completion import complete_model
from inference_client.cli.display import Display
from inference_client.cli.files import list_files, print_file
from inference_client.cli.output import (
    JsonOption,
    print_bytes,
    print_facts,
    print_json,
    print_line,
    print_log,
    print_path,
    show_moment,
)
from inference_client.cli.pages import open_page
from inference_client.cli.rerun import rerun
from inference_client.cli.results import PriorityOption, TimeoutOption, fetch_output, resolve_target, wait_for_end
from inference_client.cli.server_options import server_options
from inference_client.cli.suggestions import suggesting_models
from inference_client.cli.task_list import list_tasks
from inference_client.cli.uids import OptionalUid, UidArgument, named_task, remember
from inference_client.schemas import TaskView
from inference_client.units import format_size, parse_duration
from inference_client.wording import describe, describe_progress

ExtractOption = Annotated[bool, typer.Option("--extract", help="Unpack the output into the folder OUT.")]


def add_task_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    commands: dict[str, Callable[..., None]] = {
        "submit": submit,
        "status": show_status,
        "wait": wait,
        "fetch": fetch,
        "files": list_files,
        "cat": print_file,
        "logs": show_logs,
        "cancel": cancel,
        "rerun": rerun,
        "delete": delete,
        "list": list_tasks,
        "open": open_page,
    }
    for name, command in commands.items():
        app.command(name)(command)


def submit(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[@VERSION]",
            help="The model's id, which means its default version, or one version of it.",
            autocompletion=complete_model,
        ),
    ],
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="A folder (its content is sent), a .zip (sent as it is), or files."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Wait, and store the output as this zip or in this folder."),
    ] = None,
    wait_: Annotated[bool | None, typer.Option("--wait/--no-wait", help="Wait for the end [default: with -o].")] = None,
    extract: ExtractOption = False,
    timeout: TimeoutOption = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submitting the same content again under this key gives the same task.")
    ] = None,
    priority: PriorityOption = 0,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="A name for tasks that belong together, to list them by.")
    ] = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="A task for each PATH, all under one label; OUT is the folder of their outputs. One that fails stops "
            "no other.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a task to MODEL; print its uid, or with -o the path of its output."""
    if out is not None and wait_ is False:
        raise typer.BadParameter("-o waits for the output; leave out --no-wait")
    if extract and out is None:
        raise typer.BadParameter("--extract needs -o")
    if each and (idempotency_key is not None or timeout is not None):
        raise typer.BadParameter("--each goes without --idempotency-key and --timeout")
    timeout_s = None if timeout is None else parse_duration(timeout)
    display = Display(quiet=as_json)
    if each:
        with server_options(context).connect(display) as client:
            submit_each(
                client,
                display,
                model,
                paths,
                label=label,
                priority=priority,
                out=out,
                extract=extract,
                wait=bool(wait_),
                as_json=as_json,
            )
        return
    if out is not None:
        # A bad path is noticed before hours of work, not after them.
        resolve_target(out, "", extract=extract)
    with server_options(context).connect(display) as client:
        with suggesting_models(client, model), display.show_transfer("sent") as on_progress:
            uid = client.submit(
                model,
                paths,
                idempotency_key=idempotency_key,
                priority=priority,
                label=label,
                on_progress=on_progress,
            )
        remember(display, client, uid, model, label)
        if out is None and not as_json:
            print_line(uid)
        else:
            display.say(f"task {uid}")
        task = wait_for_end(client, display, uid, timeout_s) if wait_ or out is not None else None
        if out is not None:
            stored = fetch_output(client, display, uid, out, extract=extract)
    if as_json:
        facts = {"uid": uid} if task is None else task.model_dump(mode="json")
        print_json(facts if out is None else {**facts, "path": str(stored)})
    elif out is not None:
        print_path(stored)


def show_status(
    context: typer.Context, uid: OptionalUid = None, *, label: LabelOption = None, as_json: JsonOption = False
) -> None:
    """Show where a task stands, or how many tasks with a label stand where."""
    if label is not None or uid is None:
        with server_options(context).connect(Display(quiet=as_json)) as client:
            show_status_of_label(client, _one_of(uid, label), as_json=as_json)
        return
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, named_task(client, uid) as whole:
        task = client.status(whole)
    if as_json:
        print_json(task)
        return
    print_facts(_facts(task))
    display.show_warnings(task)


def wait(context: typer.Context, uid: UidArgument, timeout: TimeoutOption = None, as_json: JsonOption = False) -> None:
    """Wait until a task has ended; the exit code says how."""
    display = Display(quiet=as_json)
    timeout_s = None if timeout is None else parse_duration(timeout)
    with server_options(context).connect(display) as client, named_task(client, uid) as whole:
        task = wait_for_end(client, display, whole, timeout_s)
    print_json(task) if as_json else print_line(str(task.status))


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
    with server_options(context).connect(display) as client, named_task(client, uid) as whole:
        counts: list[int] = []
        stored = fetch_output(client, display, whole, out, extract=extract, on_warnings=counts.append)
        print_json({"uid": whole, "path": str(stored)}) if as_json else print_path(stored)
        if counts:
            display.show_warnings(client.status(whole))


def show_logs(
    context: typer.Context,
    uid: UidArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the task ends.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The bytes as they are, with whatever a terminal may obey.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what the task's container wrote to stdout and stderr.

    Control characters other than colours and carriage returns are replaced, because the terminal that shows the text in
    the end, be it through a pipe or a file, would obey them.
    """
    if raw and as_json:
        raise typer.BadParameter("give --raw or --json, not both: in JSON nothing is replaced")
    with server_options(context).connect(Display(quiet=as_json)) as client, named_task(client, uid) as whole:
        pieces = client.logs(whole, follow=follow)
        if as_json:
            print_json({"uid": whole, "log": b"".join(pieces).decode(errors="replace")})
        else:
            print_bytes(pieces) if raw else print_log(pieces)


def cancel(
    context: typer.Context, uid: OptionalUid = None, *, label: LabelOption = None, as_json: JsonOption = False
) -> None:
    """Cancel a task, or all tasks with a label, and keep their records."""
    if label is not None or uid is None:
        with server_options(context).connect(Display(quiet=as_json)) as client:
            cancel_label(client, _one_of(uid, label), as_json=as_json)
        return
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, named_task(client, uid) as whole:
        task = client.cancel(whole)
    print_json(task) if as_json else print_line(describe(task))
    display.show_warnings(task)


def delete(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Delete a task with its input and output; one that runs is cancelled."""
    display = Display(quiet=as_json)
    with server_options(context).connect(display) as client, named_task(client, uid) as whole:
        client.delete(whole)
    display.say("deleted")
    if as_json:
        print_json({"uid": whole, "deleted": True})


def _one_of(uid: str | None, label: str | None) -> str:
    """The label, if it is given and no uid is."""
    if label is None or uid is not None:
        raise typer.BadParameter("give a UID or --label, and not both")
    return label


def _facts(task: TaskView) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = [
        ("uid", task.uid),
        ("model", f"{task.human_readable_id}, version {task.model_version}"),
        ("status", describe(task)),
        ("submitted", show_moment(task.created_at)),
    ]
    facts += [("rerun of", task.rerun_of)] if task.rerun_of else []
    facts += [("label", task.label)] if task.label else []
    facts += [("waits for", task.wait_detail)] if task.wait_detail and task.status.is_held else []
    facts += [("progress", describe_progress(task.progress, task.progress_text))] if task.progress is not None else []
    facts += [("started", show_moment(task.started_at))] if task.started_at else []
    facts += [("ended", show_moment(task.ended_at))] if task.ended_at else []
    facts += [("image", task.image)] if task.image else []
    facts += [("exit code", str(task.exit_code))] if task.exit_code is not None else []
    facts += [("detail", task.detail)] if task.detail else []
    facts += [("output", format_size(task.output.size_bytes))] if task.output else []
    facts += [("warnings", str(task.warning_count))] if task.warning_count else []
    return facts
