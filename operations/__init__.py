"""The operator's command, `inference-server`: run it, make its secrets, list GPUs, check a host."""
