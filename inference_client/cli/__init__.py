"""The `infer` command."""

from inference_client.cli.app import main, run

__all__ = ["main", "run"]
