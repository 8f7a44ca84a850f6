"""A running server under random faults, and what became of its tasks."""
