"""Kernels import this before anything else: which version of `redhareapi` they get."""

VERSION = "1.0"
