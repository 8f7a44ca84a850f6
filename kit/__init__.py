"""Plumbing for every service: settings, logs, loops, signals, HTTP serving, errors. Imports nothing else of ours."""
