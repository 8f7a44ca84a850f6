"""`infer submit --each`, and what `infer status` and `infer cancel` do with a label: many tasks as one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference_client.cli.display import Display
from inference_client.cli.exit_codes import ExitCode
from inference_client.cli.output import print_json, print_line, print_path, print_table
from inference_client.cli.suggestions import suggesting_models
from inference_client.cli.uids import labelled_tasks, remember
from inference_client.errors import Interrupted, ReportedError, UnusableInput
from inference_client.schemas import TaskView
from inference_client.wording import describe

if TYPE_CHECKING:
    from inference_client.batches import Batch, Result
    from inference_client.client import InferenceClient

LabelOption = Annotated[
    str | None, typer.Option("--label", metavar="LABEL", help="All tasks with this label, instead of one.")
]


def submit_each(
    client: "InferenceClient",
    display: Display,
    model: str,
    paths: Sequence[Path],
    *,
    label: str | None,
    priority: int,
    out: Path | None,
    extract: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit a task for each path, and with `wait` follow them all; one that fails stops no other."""
    from inference_client.batches import new_label

    targets = _targets(paths, out, extract=extract)
    label = label or new_label(model)
    display.say(f"label: {label}")
    with suggesting_models(client, model), _telling_how_far(display):
        batch = client.map(
            model,
            paths,
            label=label,
            priority=priority,
            progress=None if not as_json else False,
            on_submit=lambda uid: remember(display, client, uid, model, label),
        )
    if out is None and not as_json:
        for uid in filter(None, batch.uids):
            print_line(uid)
    rows = _follow(display, batch, targets) if wait or out is not None else _report_submitted(display, batch)
    if as_json:
        print_json({"label": label, "cases": [{"case": str(path), **rows[path]} for path in paths]})
    elif out is not None:
        print_path(out)
    if any(row.get("error") for row in rows.values()):
        raise typer.Exit(ExitCode.TASK_FAILED)


@contextmanager
def _telling_how_far(display: Display) -> Iterator[None]:
    """Show what was submitted before an error that stopped the others: those tasks go on."""
    try:
        yield
    except ReportedError as error:
        for note in getattr(error, "__notes__", ()):
            display.warn(note)
        raise


def show_status_of_label(client: "InferenceClient", label: str, *, as_json: bool) -> None:
    """Print how many tasks with this label have each status."""
    _print_counts(label, map(client.status, labelled_tasks(client, label)), as_json=as_json)


def cancel_label(client: "InferenceClient", label: str, *, as_json: bool) -> None:
    """Cancel every task with this label; those that have ended stay as they are."""
    _print_counts(label, map(client.cancel, labelled_tasks(client, label)), as_json=as_json)


def _print_counts(label: str, tasks: Iterable[TaskView], *, as_json: bool) -> None:
    # What is being cancelled still runs, and says so.
    counts = Counter(_state(task) for task in tasks)
    if as_json:
        print_json({"label": label, "tasks": counts})
    else:
        print_table(("STATUS", "TASKS"), [(status, str(count)) for status, count in counts.items()])


def _state(task: TaskView) -> str:
    is_going = task.cancel_requested and not task.status.is_terminal
    return f"{task.status}, being cancelled" if is_going else str(task.status)


def _targets(paths: Sequence[Path], out: Path | None, *, extract: bool) -> dict[Path, Path | None]:
    """Where each output goes: into the folder OUT, under the name of its case. Raises `UnusableInput`."""
    if twice := [str(path) for path, count in Counter(paths).items() if count > 1]:
        raise UnusableInput(f"{', '.join(twice)} was named twice")
    if out is None:
        return dict.fromkeys(paths)
    names = {path: path.resolve().name + ("" if extract else ".zip") for path in paths}
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise UnusableInput(f"several outputs would be {out / twice[0]}; submit these cases with different -o")
    out.mkdir(exist_ok=True)
    return {path: out / name for path, name in names.items()}


def _report_submitted(display: Display, batch: "Batch[Path]") -> dict[Path, dict[str, Any]]:
    rows: dict[Path, dict[str, Any]] = {}
    for case, uid, error in batch.submissions():
        rows[case] = {"uid": uid} if error is None else {"uid": uid, "error": error.to_body()}
        if error is not None:
            display.warn(f"{case}: {error.detail}")
    return rows


def _follow(display: Display, batch: "Batch[Path]", targets: dict[Path, Path | None]) -> dict[Path, dict[str, Any]]:
    rows: dict[Path, dict[str, Any]] = {}
    try:
        for result in batch.as_ended():
            rows[result.case] = _finish(display, result, targets)
            display.say(f"{len(rows)} of {len(batch)} ended")
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"stopped waiting; the tasks go on. Cancel them with: infer cancel --label '{batch.label}'"
        ) from error
    return rows


def _finish(display: Display, result: "Result[Path]", targets: dict[Path, Path | None]) -> dict[str, Any]:
    row: dict[str, Any] = {"uid": result.uid}
    if result.task is not None:
        row["status"] = str(result.task.status)
        display.show_warnings(result.task, of=f"{result.case}: ")
    target = targets[result.case]
    try:
        if target is not None:
            with result.output as output:
                output.save_zip(target) if target.suffix == ".zip" else output.save(target)
            row["path"] = str(target)
        elif result.error is not None:
            raise result.error
    except ReportedError as error:
        said = describe(result.task) if result.task is not None else "not submitted"
        display.warn(f"{result.case}: {said}: {error.detail}")
        return {**row, "error": error.to_body()}
    return row
