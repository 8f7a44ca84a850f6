"""Owns the truth: every fact about models, tasks, attempts, consumers, deployments and keys is a row of this service,
every zip one of its archives."""
