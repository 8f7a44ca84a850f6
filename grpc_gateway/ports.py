"""Listening: the ports of a gateway and what it says if it cannot have one."""

import grpc


class PortTaken(Exception):
    """The port cannot be had; the text says why."""


def listen(server: grpc.aio.Server, host: str, port: int) -> int:
    """Listen without TLS at `host`; returns the port, which for 0 is a free one. Raises `PortTaken`."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortTaken(f"{address} cannot be had: another process listens there, or it is not ours") from error
