"""`python -m standalone` is `inference-server`."""

from standalone.cli import main

main()
