"""The `infer` command: its options, its commands, and the one place that turns errors into output and exit codes."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from contract.errors import InferenceError
from inference_client.cli_calls import call
from inference_client.cli_deployments import add_deployment_commands
from inference_client.cli_models import build_models_app
from inference_client.cli_tasks import add_task_commands
from inference_client.config import DEFAULT_SERVER, VARIABLES
from inference_client.display import Display
from inference_client.errors import ClientError, Interrupted, UnusableInput
from inference_client.exit_codes import MEANINGS, ExitCode, exit_code_of
from inference_client.session import Session, print_json

# \b keeps the lines as they are.
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())


def main() -> NoReturn:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong is shown here and nowhere else."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in options
    command = typer.main.get_command(build_app())
    try:
        code = command.main(args=list(arguments), prog_name="infer", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Typer exits by itself only when stdout's reader has seen enough, as in `infer logs ... | head`. The
        # interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (InferenceError, ClientError, OSError) as error:
        return _report(error, as_json=as_json)
    except typer.Abort:
        return _report(Interrupted("interrupted"), as_json=as_json)
    except Exception as error:
        # Typer keeps the class of its usage errors to itself, and moved it between releases.
        if not hasattr(error, "format_message"):
            raise
        return _report_usage(error, as_json=as_json)
    # Typer turns a Ctrl-C into this result.
    if code == ExitCode.INTERRUPTED:
        return _report(Interrupted("interrupted"), as_json=as_json)
    return code if isinstance(code, int) else ExitCode.OK


def build_app() -> typer.Typer:
    """The command with all its subcommands."""
    app = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=_EPILOG, add_completion=True
    )
    app.callback()(_callback)
    app.add_typer(build_models_app(), name="models")
    add_task_commands(app)
    app.command("call")(call)
    add_deployment_commands(app)
    return app


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
        str | None, typer.Option(help=f"The API key; other users may see it here, so prefer [{VARIABLES['key']}].")
    ] = None,
    ca: Annotated[
        str | None, typer.Option(help=f"A file with the CA that signed the server's certificate [{VARIABLES['ca']}].")
    ] = None,
) -> None:
    """Run models on an InferenceServer: send files, wait, fetch what the model made of them.

    All of them may also stand in ~/.config/inference-server/config.toml as server, grpc, key and ca.
    """
    context.obj = Session(server=server, grpc=grpc, key=key, ca=ca)


def _report(error: InferenceError | ClientError | OSError, *, as_json: bool) -> ExitCode:
    code = exit_code_of(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        error = UnusableInput(f"{where}{error.strerror or error}")
    if as_json:
        print_json(error.to_body())
    else:
        Display().show_failure(error.to_body())
    return code


def _report_usage(error: Exception, *, as_json: bool) -> int:
    if as_json:
        print_json({"error": "UsageError", "detail": error.format_message()})  # type: ignore[attr-defined]
    else:
        error.show()  # type: ignore[attr-defined]
    return getattr(error, "exit_code", ExitCode.USAGE)
