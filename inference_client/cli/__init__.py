"""The `infer` command."""

import sys
from collections.abc import Sequence
from typing import NoReturn


def main() -> NoReturn:
    """Run `infer` with the arguments of this process, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Whatever goes wrong is shown on stderr."""
    if list(arguments) == ["--version"]:
        # The question that scripts ask needs none of the commands, which take five times as long to import.
        from inference_client.cli.version import show_version

        show_version()
        return 0
    from inference_client.cli.app import run

    return run(arguments)
