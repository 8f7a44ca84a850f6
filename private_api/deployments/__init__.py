"""The rules of deployments, their replicas and the gateways that call them.

A function that is given the database commits by itself; one that is given a session runs in its caller's transaction.
"""
