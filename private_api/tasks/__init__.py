"""The rules of a task's life, in times of the database's clock.

A function that is given the database commits by itself; one that is given a session runs in its caller's transaction.
"""
