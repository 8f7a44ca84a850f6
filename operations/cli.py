"""`inference-server`: the operator's command. Light to start: each command imports what it needs itself."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from operations.keys import app as keys_app

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
EngineName = Literal["auto", "docker", "process"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BackupFolder = Annotated[Path, typer.Argument(help="Where the backup lies.")]
StandaloneData = Annotated[
    Path | None, typer.Option("--data-dir", help="The data folder of a standalone server; else the variables say all.")
]


app.add_typer(keys_app, name="keys")


@app.callback()
def describe() -> None:
    """Run and look after an InferenceServer."""


@app.command()
def standalone(
    *,
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("data"),
    host: Annotated[str, typer.Option(help="The address to listen on. There is no TLS here.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    engine: Annotated[EngineName, typer.Option(help="auto: Docker where it answers, else processes.")] = "auto",
    gpu_uuid: Annotated[str | None, typer.Option(help="The GPU that tasks with use_gpu get.")] = None,
    require_api_key: Annotated[bool, typer.Option(help="Every call needs a key; `keys create` makes them.")] = False,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Run every service in this process, until Ctrl-C. Queued and running tasks survive a restart."""
    from contract.logging import configure_logging
    from contract.signals import stop_event
    from job_consumer.engine import EngineUnavailable
    from job_consumer.gpu_check import GpuMissing
    from standalone.server import DataDirInUseError, Options, standalone_server

    configure_logging(log_level, "text")
    stopping = stop_event()
    options = Options(
        data_dir=data_dir, host=host, port=port, engine=engine, gpu_uuid=gpu_uuid, require_api_key=require_api_key
    )
    try:
        with standalone_server(options) as server:
            typer.echo(f"InferenceServer is ready at {server.url} ({server.engine}); docs at {server.url}/docs")
            stopping.wait()
    except (GpuMissing, DataDirInUseError, EngineUnavailable, OSError) as error:
        typer.echo(f"inference-server cannot run: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def secrets(
    folder: Annotated[Path, typer.Option("--dir", help="Where the files are kept.")] = Path("secrets"),
) -> None:
    """Make the passwords by which the services know each other, once: what is there stays. Exit 2: it is unusable."""
    from operations.secrets import report

    raise typer.Exit(report(folder))


@app.command()
def gpus(
    write: Annotated[
        Path | None, typer.Option(help="Write a Compose file with one consumer per GPU, as compose.gpu.yaml.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List this host's GPUs; a MIG slice counts as one. Exit 3: there is none."""
    from operations import gpu_consumers, gpus

    try:
        found = gpus.find_gpus()
    except gpus.NoGpuError as error:
        typer.echo(f"{error}. Without a GPU: COMPOSE_PROFILES=cpu in .env runs one consumer for CPU tasks.", err=True)
        raise typer.Exit(3) from error
    gpu_consumers.show(found, as_json=as_json)
    if write is not None:
        try:
            gpu_consumers.write_override(write, found)
        except OSError as error:
            typer.echo(f"cannot write {write}: {error.strerror}", err=True)
            raise typer.Exit(2) from error
        typer.echo(f"wrote {write}; in .env: {gpu_consumers.activation(write)}", err=True)


@app.command()
def doctor(
    folder: Annotated[Path, typer.Option("--dir", help="Where docker-compose.yaml and .env are.")] = Path(),
    as_json: Json = False,
) -> None:
    """Check this host and what is configured on it. Exit 1: something will not work."""
    from operations.doctor import examine, show
    from operations.findings import Level

    findings = examine(folder)
    show(findings, as_json=as_json)
    raise typer.Exit(int(any(finding.level is Level.PROBLEM for finding in findings)))


@app.command()
def backup(folder: BackupFolder, data_dir: StandaloneData = None) -> None:
    """Copy everything into an empty FOLDER while the server runs. Exit 1: complete, but the server had lost files."""
    from operations.backup import report_backup

    raise typer.Exit(report_backup(folder, data_dir))


@app.command()
def restore(folder: BackupFolder, data_dir: StandaloneData = None) -> None:
    """Bring a backup back into an empty database and data folder, before any service is started."""
    from operations.backup import report_restore

    raise typer.Exit(report_restore(folder, data_dir))


def main() -> None:
    """The entry point."""
    app()
