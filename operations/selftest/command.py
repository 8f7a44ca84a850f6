"""`inference-server selftest`: asks, refuses where others' tasks are queued, runs the faults, prints the table."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inference_client import InferenceClient
from inference_client.errors import ReportedError
from kit.settings import SettingsError, environment
from operations.checks.configuration import read_variables
from operations.selftest.bench import Bench, FaultNoticedError, open_bench
from operations.selftest.faults import FAULTS
from operations.selftest.stack import ComposeStack, StackError
from operations.welcome import DoorSettings

FAULTY, UNUSABLE = 1, 2


@dataclass(frozen=True)
class SelftestArguments:
    """The command line."""

    folder: Path
    key: str | None
    yes: bool


def run_selftest(arguments: SelftestArguments) -> int:
    """Break the stack of a folder. Returns the exit code: 1 if a promise was not kept, 2 if nothing was tried."""
    variables = {**read_variables(arguments.folder / ".env"), **environment()}
    stack = ComposeStack(arguments.folder, variables)
    try:
        url = DoorSettings.load(variables).url
        with _certificate(stack) as certificate, InferenceClient(url, key=arguments.key, verify=certificate) as client:
            if refusal := _refusal(client):
                typer.echo(refusal, err=True)
                return UNUSABLE
            question = (
                f"This kills consumers, private API, broker and database of {stack.project()} at {url}, one after the "
                "other, and runs tasks. Nobody should use it meanwhile. Go on?"
            )
            if not arguments.yes and not typer.confirm(question, err=True):
                return UNUSABLE
            with open_bench(client, stack, url, arguments.key, certificate) as bench:
                return _judge(bench)
    except (StackError, SettingsError, ReportedError) as error:
        typer.echo(f"inference-server selftest: {error}", err=True)
        return UNUSABLE


@contextmanager
def _certificate(stack: ComposeStack) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".crt") as file:
        file.write(stack.certificate())
        file.flush()
        yield file.name


def _refusal(client: InferenceClient) -> str | None:
    """Why the stack must not be broken now."""
    lanes = client.queue().lanes
    if waiting := sum(lane.queued + lane.held for lane in lanes):
        return f"{waiting} tasks wait or run on this server; repeat this once they have ended"
    return None


def _judge(bench: Bench) -> int:
    table = Table("fault", "promise", "what was seen", expand=False)
    kept = 0
    for name, fault in FAULTS.items():
        typer.echo(f"{name} ...", err=True)
        try:
            seen, is_kept = fault(bench), True
        except (FaultNoticedError, ReportedError) as error:
            seen, is_kept = str(error), False
        kept += is_kept
        verdict = Text("kept", style="green") if is_kept else Text("BROKEN", style="bold red")
        table.add_row(name, verdict, Text(seen))
    # A deleted task tells nobody any more how it ended.
    told = [uid for uid in bench.accepted if uid not in bench.deleted]
    once = sum(bench.ends(uid) == 1 for uid in told)
    left = bench.left()
    console = Console()
    console.print(table)
    console.print(f"{kept} of {len(FAULTS)} promises kept; {len(told)} tasks accepted, {once} ended once; {left} left")
    return 0 if kept == len(FAULTS) and once == len(told) and not left else FAULTY
