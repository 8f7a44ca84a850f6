"""Which release of the client this is."""

import sys
from importlib.metadata import version


def show_version() -> None:
    """Print it, without what other outputs need: that takes longer to import than all the rest."""
    sys.stdout.write(f"infer {version('inferenceserver-client')}\n")
