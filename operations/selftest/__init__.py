"""`inference-server selftest`: breaks a running Compose stack in twelve ways, and shows that every task ends once."""
