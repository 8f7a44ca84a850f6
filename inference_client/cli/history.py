"""`infer history`: what has happened to a task."""

import typer

from inference_client.cli.display import Display
from inference_client.cli.output import JsonOption, print_blank, print_json, print_line, print_table, show_moment
from inference_client.cli.server_options import server_options
from inference_client.cli.uids import UidArgument, named_task
from inference_client.schemas import AttemptView, EventView
from inference_client.units import format_duration


def show_history(context: typer.Context, uid: UidArgument, as_json: JsonOption = False) -> None:
    """Show every change of a task's status, and every attempt: who ran it, how long, and how that ended."""
    with server_options(context).connect(Display(quiet=as_json)) as client, named_task(client, uid) as whole:
        events, attempts = client.events(whole), client.attempts(whole)
    if as_json:
        told = [view.model_dump(mode="json") for view in events]
        print_json({"uid": whole, "events": told, "attempts": [view.model_dump(mode="json") for view in attempts]})
        return
    print_table(("AT", "STATUS", "FENCE", "REASON"), [_event(event) for event in events])
    if events and events[0].rerun_of:
        print_blank()
        print_line(f"A rerun of {events[0].rerun_of}")
    if attempts:
        print_blank()
        header = ("FENCE", "CONSUMER", "CLAIMED", "TOOK", "OUTCOME", "DETAIL")
        print_table(header, [_attempt(attempt) for attempt in attempts])


def _event(event: EventView) -> tuple[str, ...]:
    return show_moment(event.at), str(event.new_status), str(event.fence), str(event.reason or "-")


def _attempt(attempt: AttemptView) -> tuple[str, ...]:
    took = "-" if attempt.ended_at is None else format_duration((attempt.ended_at - attempt.claimed_at).total_seconds())
    what = took, attempt.outcome or "-", attempt.detail or "-"
    return str(attempt.fence), attempt.consumer, show_moment(attempt.claimed_at), *what
