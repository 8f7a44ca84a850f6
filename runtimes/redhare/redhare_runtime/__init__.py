"""Serves a kernel: streams of requests in, batches to the kernel, answers out in order."""
