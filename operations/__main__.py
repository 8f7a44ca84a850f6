"""`python -m operations` runs `inference-server`."""

from operations.cli import main

main()
