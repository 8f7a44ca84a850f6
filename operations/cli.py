"""`inference-server`: the operator's command. Each command imports what it needs itself, so that it starts fast."""

import gc
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from operations.audit import app as audit_app
from operations.keys import app as keys_app
from operations.models import app as models_app
from operations.run_options import Cpus, PidsLimit, SharedMemory, Temporary, listed

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
EngineName = Literal["docker", "process", "auto"]
"""`auto` once ran processes where no Docker answered: a word in older unit files, which means Docker now."""
Isolation = Literal["strict", "compatible"]
PullPolicy = Literal["missing", "always", "never"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BackupFolder = Annotated[Path, typer.Argument(help="The folder of the backup.")]
StandaloneData = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data folder of a standalone server. Default: what the variables name."),
]


app.add_typer(keys_app, name="keys")
app.add_typer(models_app, name="models")
app.add_typer(audit_app, name="audit")


@app.callback()
def describe() -> None:
    """Run and look after an InferenceServer."""


@app.command()
def standalone(
    *,
    data_dir: Annotated[Path, typer.Option(help="Where everything is stored.")] = Path("data"),
    host: Annotated[str, typer.Option(help="The address to listen on. There is no TLS here.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of live calls; 0 picks a free one.")
    ] = 9000,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Take no live calls. Models are still kept warm.")] = False,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="docker; or process: programs of models' zips run as this user. auto: an older word for docker."
        ),
    ] = "docker",
    readable: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, help="With --engine process: a folder that programs may read, beside the system's. Repeatable."
        ),
    ] = None,
    gpu_uuid: Annotated[str | None, typer.Option(help="The GPU that tasks with use_gpu get.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="The most memory of a run: bytes, or as in 4GiB. Default: 3/4 of the machine."),
    ] = None,
    shared_memory: SharedMemory = None,
    temporary: Temporary = None,
    pids_limit: PidsLimit = None,
    cpus: Cpus = None,
    require_api_key: Annotated[
        bool, typer.Option(help="Require a key for every call; `keys create` makes them.")
    ] = False,
    cors_origins: Annotated[
        str, typer.Option(help="The origins whose pages browsers let use the server, with commas between.")
    ] = "",
    allowed_hosts: Annotated[
        str, typer.Option(help="Names of this server beside its machine's, with commas between.")
    ] = "",
    allowed_images: Annotated[
        str,
        typer.Option(help="The images that may be registered, as in lab/*, with commas between. Default: any."),
    ] = "",
    model_runtimes: Annotated[str, typer.Option(help="Runtimes of the Engine that models may ask for.")] = "",
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Run every service in this process, until Ctrl-C, which ends what runs: the next start runs it again.

    After SIGTERM containers run on, and the next start finds them.
    """
    # Nothing that imports make is garbage, and looking for some takes a fifth of their time. `tune_memory` ends this.
    gc.disable()
    from contract.image_names import parse_runtimes
    from inference_client.errors import UnusableInput
    from inference_client.units import parse_size
    from job_consumer.engines import EngineUnavailable
    from job_consumer.gpu_check import GpuMissing
    from kit.logging import configure_logging
    from kit.signals import stop_event
    from private_api.image_rules import parse_images
    from public_api.cors import parse_origins
    from public_api.sites import parse_hosts
    from standalone.server import DataDirInUseError, Options, host_limits, standalone_server

    configure_logging(log_level, "text")
    stopping = stop_event()
    try:
        sizes = [parse_size(text) if text else None for text in (memory, shared_memory, temporary)]
    except UnusableInput as error:
        raise typer.BadParameter(error.detail) from error
    options = Options(
        data_dir=data_dir,
        host=host,
        port=port,
        grpc_port=None if no_grpc else grpc_port,
        engine="process" if engine == "process" else "docker",
        readable=tuple(path.absolute() for path in readable or ()),
        gpu_uuid=gpu_uuid,
        limits=host_limits(*sizes, pids=pids_limit, cpus=cpus),
        require_api_key=require_api_key,
        cors_origins=listed(cors_origins, parse_origins, "--cors-origins"),
        allowed_hosts=listed(allowed_hosts, parse_hosts, "--allowed-hosts"),
        allowed_images=listed(allowed_images, parse_images, "--allowed-images"),
        model_runtimes=listed(model_runtimes, parse_runtimes, "--model-runtimes"),
    )
    if engine == "auto":
        typer.echo("--engine auto means docker: programs without containers run with --engine process alone", err=True)
    try:
        for_good = threading.Event()
        with standalone_server(options, for_good) as server:
            typer.echo(f"InferenceServer is ready at {server.url} ({server.engine}); docs at {server.url}/docs")
            if server.grpc:
                typer.echo(f"Live calls over gRPC are taken at {server.grpc}")
            stopping.wait()
            if stopping.by_hand:
                for_good.set()
    except (GpuMissing, DataDirInUseError, EngineUnavailable, OSError) as error:
        typer.echo(f"inference-server cannot run: {error}", err=True)
        raise typer.Exit(2) from error


@app.command()
def secrets(
    folder: Annotated[Path, typer.Option("--dir", help="Where the files are.")] = Path("secrets"),
) -> None:
    """Make the passwords by which the services know each other. Existing files stay. Exit 2: one is unusable."""
    from operations.secrets import report

    raise typer.Exit(report(folder))


@app.command()
def gpus(
    write: Annotated[
        Path | None, typer.Option(help="Write a Compose file with one consumer per GPU, as compose.gpu.yaml.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List this host's GPUs; a MIG slice counts as one. Exit 3: there are none."""
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
    """Check this host and its configuration. Exit 1: something will not work."""
    from operations.doctor import examine, show
    from operations.findings import Level

    findings = examine(folder)
    show(findings, as_json=as_json)
    raise typer.Exit(int(any(finding.level is Level.PROBLEM for finding in findings)))


@app.command()
def check(
    image: Annotated[str, typer.Argument(help="The Docker image to run.")],
    *,
    input_path: Annotated[Path, typer.Option("--input", exists=True, help="A folder, file or zip for /input.")],
    model: Annotated[Path | None, typer.Option(exists=True, help="A folder or zip for /model.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Give it the first GPU of this host.")] = False,
    memory: Annotated[str | None, typer.Option(help="Memory of the run: bytes, or as in 4GiB.")] = None,
    shared_memory: SharedMemory = None,
    temporary: Temporary = None,
    pids_limit: PidsLimit = None,
    cpus: Cpus = None,
    time_limit: Annotated[str, typer.Option(help="How long it may take: seconds, or as in 2h or 1h30m.")] = "24h",
    isolation: Annotated[Isolation, typer.Option(help="As the model is to be registered.")] = "strict",
    pull_policy: Annotated[PullPolicy, typer.Option(help="When the image is pulled.")] = "missing",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Keep the output's zip.")
    ] = None,
    no_compare: Annotated[bool, typer.Option("--no-compare", help="Do not run a failure again, compatible.")] = False,
    work_volume: Annotated[str | None, typer.Option(hidden=True, help="The volume at /work, in a container.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Run an image on this machine's Docker exactly as a consumer would, and say what the server would make of it.

    Limits are the consumer's: MEMORY_LIMIT_BYTES, PIDS_LIMIT and so on, if they are set here. The log goes to stderr.
    Exit 1: the task would fail; 2: something here cannot be used; 5: Docker failed.
    """
    from operations.trial.command import CheckArguments, check_image

    arguments = CheckArguments(
        image=image,
        input=input_path,
        model=model,
        gpu=gpu,
        memory=memory,
        shared_memory=shared_memory,
        temporary=temporary,
        pids_limit=pids_limit,
        cpus=cpus,
        time_limit=time_limit,
        isolation=isolation,
        pull_policy=pull_policy,
        output=output,
        compare=not no_compare,
        work_volume=work_volume,
        as_json=as_json,
    )
    raise typer.Exit(check_image(arguments))


@app.command()
def selftest(
    folder: Annotated[Path, typer.Option("--dir", help="Where docker-compose.yaml and .env are.")] = Path(),
    *,
    key: Annotated[
        str | None, typer.Option(envvar="INFERENCE_SERVER_KEY", help="An admin's key, where the server requires keys.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Break a running Compose stack in twelve ways before it goes live, and show that every task ends once.

    Refuses while tasks wait or run. Exit 1: a promise was not kept; 2: nothing was tried.
    """
    from operations.selftest.command import SelftestArguments, run_selftest

    raise typer.Exit(run_selftest(SelftestArguments(folder, key, yes)))


@app.command()
def welcome() -> None:
    """Say where the server is, and make the first admin key if keys are required and there is none."""
    from operations.welcome import report

    raise typer.Exit(report())


@app.command()
def migrate(
    login: Annotated[
        Path | None,
        typer.Option(help="Give the services a role that cannot change the audit trail; its URL goes here."),
    ] = None,
) -> None:
    """Bring the database to this release, as the role that owns its tables. Waits until it answers."""
    from operations.migrate import report

    report(login)


@app.command()
def backup(folder: BackupFolder, data_dir: StandaloneData = None) -> None:
    """Copy everything into an empty FOLDER while the server runs. Exit 1: complete, but the server had lost files."""
    from operations.backup import report_backup

    raise typer.Exit(report_backup(folder, data_dir))


@app.command()
def restore(folder: BackupFolder, data_dir: StandaloneData = None) -> None:
    """Restore a backup into an empty database and data folder, before any service is started."""
    from operations.backup import report_restore

    raise typer.Exit(report_restore(folder, data_dir))


def main() -> None:
    app()
