"""Which release of the client this is."""

from importlib.metadata import version

from inference_client.cli.output import print_line


def show_version() -> None:
    """Print it."""
    print_line(f"infer {version('inferenceserver-client')}")
