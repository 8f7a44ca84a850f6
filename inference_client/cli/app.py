"""The whole `infer` command, and the place where errors become output and exit codes."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from inference_client.cli.calls import call
from inference_client.cli.deployments import add_deployment_commands
from inference_client.cli.display import Display
from inference_client.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from inference_client.cli.folder_commands import add_folder_commands
from inference_client.cli.hints import hint_for
from inference_client.cli.history import show_history
from inference_client.cli.keys import build_keys_app, show_quota, whoami
from inference_client.cli.login import login, logout
from inference_client.cli.models import build_models_app
from inference_client.cli.output import print_json
from inference_client.cli.overview import add_overview_commands
from inference_client.cli.server_options import ServerOptions
from inference_client.cli.tasks import add_task_commands
from inference_client.cli.version import show_version
from inference_client.cli.watch import watch
from inference_client.config import DEFAULT_SERVER
from inference_client.config_file import VARIABLES
from inference_client.errors import Interrupted, ReportedError, UnusableInput

# \b keeps the lines as they are.
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())

_BEFORE_THE_COMMAND = frozenset(f"--{name}" for name in VARIABLES)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Whatever goes wrong is shown here and nowhere else."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in options
    command = typer.main.get_command(build_app())
    try:
        code = command.main(args=list(arguments), prog_name="infer", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Typer exits by itself only if the reader of stdout is gone, as in `infer logs ... | head`. The interpreter
        # must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (ReportedError, OSError) as error:
        return _report(error, as_json=as_json)
    except typer.Abort:
        return _report(Interrupted("interrupted"), as_json=as_json)
    except Exception as error:
        # Typer keeps the class of its usage errors to itself, and moved it between releases.
        if not hasattr(error, "format_message"):
            raise
        return _report_usage(error, as_json=as_json)
    # What Typer turns a Ctrl-C into.
    if code == ExitCode.INTERRUPTED:
        return _report(Interrupted("interrupted"), as_json=as_json)
    return code if isinstance(code, int) else ExitCode.OK


def build_app() -> typer.Typer:
    """The command with all its subcommands."""
    app = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=_EPILOG, add_completion=True
    )
    app.callback()(_callback)
    app.command("login")(login)
    app.command("logout")(logout)
    app.command("whoami")(whoami)
    app.command("quota")(show_quota)
    app.add_typer(build_keys_app(), name="keys")
    app.add_typer(build_models_app(), name="models")
    add_folder_commands(app)
    add_task_commands(app)
    app.command("history")(show_history)
    app.command("call")(call)
    add_deployment_commands(app)
    add_overview_commands(app)
    app.command("watch")(watch)
    return app


def _show_version(value: bool) -> None:
    if value:
        show_version()
        raise typer.Exit


def _callback(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option(help=f"The server's URL [{VARIABLES['server']}; default {DEFAULT_SERVER}].")
    ] = None,
    grpc: Annotated[
        str | None,
        typer.Option(
            help=f"The server's gRPC door, host:port [{VARIABLES['grpc']}; default grpc.<server's host>:443]."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help=f"The API key. Other users of this machine may see it here; prefer [{VARIABLES['key']}]."),
    ] = None,
    ca: Annotated[
        str | None,
        typer.Option(help=f"A file with the CA that signed the server's certificate [{VARIABLES['ca']}]."),
    ] = None,
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version of infer.")
    ] = False,
) -> None:
    """Run models on an InferenceServer: send files, wait, fetch what the model made of them.

    The options may also stand in ~/.config/inference-server/config.toml as server, grpc, key and ca; `infer login`
    stores server and key there.
    """
    context.obj = ServerOptions(server=server, grpc=grpc, key=key, ca=ca)


def _report(error: ReportedError | OSError, *, as_json: bool) -> ExitCode:
    code = exit_code_of(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        error = UnusableInput(f"{where}{error.strerror or error}")
    if as_json:
        print_json(error.to_body())
    else:
        hint = hint_for(error)
        Display().show_failure(error.to_body() if hint is None else {**error.to_body(), "detail": hint})
    return code


def _report_usage(error: Exception, *, as_json: bool) -> int:
    if as_json:
        print_json({"error": "UsageError", "detail": error.format_message()})  # type: ignore[attr-defined]
        return getattr(error, "exit_code", ExitCode.USAGE)
    error.show()  # type: ignore[attr-defined]
    option = getattr(error, "option_name", None)
    if option in _BEFORE_THE_COMMAND:
        Display().say(f"{option} stands before the command: infer {option} ... COMMAND")
    return getattr(error, "exit_code", ExitCode.USAGE)
