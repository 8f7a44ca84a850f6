"""`python -m operations` is `inference-server`."""

from operations.cli import main

main()
