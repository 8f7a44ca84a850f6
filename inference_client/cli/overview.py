"""`infer queue` and `infer consumers`: what runs on the server, and what it waits for."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from inference_client.cli.completion import complete_consumer
from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_blank, print_json, print_line, print_table, show_uid
from inference_client.cli.server_options import server_options
from inference_client.cli.suggestions import suggesting
from inference_client.errors import ConsumerNotFound
from inference_client.overview_schemas import ConsumerView, LaneView, QueueView
from inference_client.statuses import Kind
from inference_client.units import format_duration

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The consumer's name, as `infer consumers` shows it.", autocompletion=complete_consumer
    ),
]


def add_overview_commands(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("queue")(show_queue)
    app.command("consumers")(list_consumers)
    app.command("drain")(drain)
    app.command("resume")(resume)


def show_queue(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show how many tasks wait and run, and your own; with the scope operate everybody's."""
    with server_options(context).connect(Display(quiet=as_json)) as client:
        queue = client.queue()
    if as_json:
        print_json(queue)
        return
    header = ("KIND", "WAITING", "HELD", "CONSUMERS", "FREE", "OLDEST", "WAITS FOR")
    print_table(header, [_lane(lane) for lane in queue.lanes])
    if queue.tasks:
        print_blank()
        print_table(("KIND", "PLACE", "UID", "MODEL", "STATUS", "OWNER", "CONSUMER"), _tasks(queue))


def list_consumers(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the consumers: what each takes, when it was last heard from, what it runs, why it takes nothing."""
    with server_options(context).connect(Display(quiet=as_json)) as client:
        consumers = list(client.list_consumers())
    if as_json:
        print_json([consumer.model_dump(mode="json") for consumer in consumers])
        return
    header = ("NAME", "HOST", "KINDS", "GPU", "STATUS", "SEEN", "RUNS", "DETAIL")
    print_table(header, [_consumer(consumer) for consumer in consumers])


def drain(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Let a consumer finish what it has and take nothing new, before its host is rebooted. Needs the scope operate."""
    _order(context, name, lambda client, name: client.drain_consumer(name), as_json=as_json)


def resume(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Let a consumer that drains take work again. Needs the scope operate."""
    _order(context, name, lambda client, name: client.resume_consumer(name), as_json=as_json)


def _order(
    context: typer.Context, name: str, order: "Callable[[InferenceClient, str], ConsumerView]", *, as_json: bool
) -> None:
    with (
        server_options(context).connect(Display(quiet=as_json)) as client,
        suggesting(ConsumerNotFound, name, lambda: (consumer.name for consumer in client.list_consumers())),
    ):
        consumer = order(client, name)
    detail = f": {consumer.detail}" if consumer.detail else ""
    print_json(consumer) if as_json else print_line(f"{consumer.name} is {consumer.status}{detail}")


def _lane(lane: LaneView) -> tuple[str, ...]:
    oldest = _ago(lane.oldest_queued_at) if lane.oldest_queued_at else "-"
    counts = (str(count) for count in (lane.queued, lane.held, lane.consumers, lane.free))
    return (str(lane.kind), *counts, oldest, lane.wait_detail or "-")


def _tasks(queue: QueueView) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for task in queue.tasks:
        place = "-" if task.position is None else str(task.position)
        about = task.human_readable_id, str(task.status), task.owner or "-", task.consumer or "-"
        rows.append((str(task.kind), place, show_uid(task.uid), *about))
    return rows


def _consumer(consumer: ConsumerView) -> tuple[str, ...]:
    runs = [consumer.task.human_readable_id] if consumer.task else []
    runs += [f"{replica.human_readable_id} (warm)" for replica in consumer.replicas]
    gpu = consumer.gpu_uuid or "-"
    kinds = "+".join(str(kind) for kind in sorted(consumer.kinds, key=lambda kind: kind is not Kind.GPU)) or "-"
    what = consumer.host or "-", kinds, gpu, str(consumer.status), _ago(consumer.seen_at), ", ".join(runs) or "-"
    return (consumer.name, *what, consumer.detail or "-")


def _ago(moment: datetime) -> str:
    return f"{format_duration((datetime.now(UTC) - moment).total_seconds())} ago"
