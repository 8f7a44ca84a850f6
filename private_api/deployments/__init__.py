"""The rules of deployments, their replicas and the gateways that call them.

A function that is given the database is one transaction.
"""
