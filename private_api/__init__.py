"""Owns the truth: every fact about models, tasks, attempts and consumers is a row here, every zip an archive here."""
