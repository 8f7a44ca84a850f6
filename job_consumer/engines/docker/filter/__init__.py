"""Stands between consumers and the Docker socket, which is root on its host.

It lets through what a consumer does with its own runs and refuses everything else, so that a consumer that was taken
over gets no further than its runs: docs/decisions/0045.
"""
