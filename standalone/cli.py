"""`inference-server`: the operator's command."""

from pathlib import Path
from typing import Annotated

import typer

from contract.logging import configure_logging
from contract.signals import stop_event
from job_consumer.engine import EngineUnavailable
from standalone.server import DataDirInUseError, EngineName, Options, standalone_server

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def describe() -> None:
    """Run and look after an InferenceServer."""


@app.command()
def standalone(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("data"),
    host: Annotated[str, typer.Option(help="The address to listen on. There is no TLS here.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    engine: Annotated[EngineName, typer.Option(help="auto: Docker where it answers, else processes.")] = "auto",
    gpu_uuid: Annotated[str | None, typer.Option(help="The GPU that tasks with use_gpu get.")] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Run every service in this process, until Ctrl-C. Queued and running tasks survive a restart."""
    configure_logging(log_level, "text")
    stopping = stop_event()
    options = Options(data_dir=data_dir, host=host, port=port, engine=engine, gpu_uuid=gpu_uuid)
    try:
        with standalone_server(options) as server:
            typer.echo(f"InferenceServer is ready at {server.url} ({server.engine}); docs at {server.url}/docs")
            stopping.wait()
    except (DataDirInUseError, EngineUnavailable, OSError) as error:
        typer.echo(f"inference-server cannot run: {error}", err=True)
        raise typer.Exit(2) from error


def main() -> None:
    """The entry point."""
    app()
