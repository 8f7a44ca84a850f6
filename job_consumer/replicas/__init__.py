"""Replicas of deployments: the loop that hosts them, the life of each, and the calls to their containers."""
