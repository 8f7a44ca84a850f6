"""The operator's command, `inference-server`: standalone, secrets, keys, GPUs, the doctor, backup and restore."""
