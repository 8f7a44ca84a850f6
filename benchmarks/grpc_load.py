"""Calls one gRPC method over and over and prints the figures as JSON. `benchmarks.grpc` starts it as a process.

Messages are opaque bytes, so that the client's own work is the same on every lane.
"""

import argparse
import asyncio
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure calls per second and latencies (ms) of `concurrency` callers on one channel for `seconds`."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if arguments.sni:
        options.append(("grpc.ssl_target_name_override", arguments.sni))
    channel = (
        grpc.aio.secure_channel(arguments.target, _credentials(arguments.certificate), options)
        if arguments.certificate
        else grpc.aio.insecure_channel(arguments.target, options)
    )
    payload = _message(arguments.bytes, arguments.model)
    metadata = [tuple(pair.split("=", 1)) for pair in arguments.metadata]
    latencies: list[float] = []
    if arguments.stream:
        return await _measure_streams(arguments, channel, payload, metadata)
    async with channel:
        call = channel.unary_unary(arguments.method)
        await call(payload, metadata=metadata, wait_for_ready=True, timeout=30)
        ends_at = time.perf_counter() + arguments.seconds

        async def repeat() -> None:
            while (began := time.perf_counter()) < ends_at:
                await call(payload, metadata=metadata, timeout=30)
                latencies.append(time.perf_counter() - began)
                if arguments.pause:
                    await asyncio.sleep(arguments.pause)

        began = time.perf_counter()
        await asyncio.gather(*(repeat() for _ in range(arguments.concurrency)))
        took = time.perf_counter() - began
    return _figures(latencies, took)


async def _measure_streams(
    arguments: argparse.Namespace, channel: grpc.aio.Channel, payload: bytes, metadata: list[tuple[str, str]]
) -> dict[str, float]:
    """Messages per second, and how long each waits for its echo, of `concurrency` streams that stay open."""
    latencies: list[float] = []
    async with channel:
        method = channel.stream_stream(arguments.method)
        streams = [method(metadata=metadata, wait_for_ready=True) for _ in range(arguments.concurrency)]

        async def repeat(stream: Any, ends_at: float) -> None:
            while (began := time.perf_counter()) < ends_at:
                await stream.write(payload)
                await stream.read()
                latencies.append(time.perf_counter() - began)

        # The first message of each finds its way.
        await asyncio.gather(*(repeat(stream, time.perf_counter() + 0.01) for stream in streams))
        latencies.clear()
        began = time.perf_counter()
        await asyncio.gather(*(repeat(stream, began + arguments.seconds) for stream in streams))
        took = time.perf_counter() - began
        for stream in streams:
            stream.cancel()
    return _figures(latencies, took)


def _figures(latencies: list[float], took: float) -> dict[str, float]:
    latencies.sort()
    return {
        "calls": len(latencies),
        "rate": len(latencies) / took,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
    }


def _message(size: int, model: str | None) -> bytes:
    """A message with this many bytes in one field; an empty message for 0.

    With a model it is a ModelInferRequest: the name is field 1, the bytes are field 7. Without one, the bytes are
    field 1.
    """
    if size == 0:
        return b""
    if model is None:
        return _field(1, bytes(size))
    return _field(1, model.encode()) + _field(7, bytes(size))


def _field(number: int, value: bytes) -> bytes:
    length, prefix = len(value), bytearray([number << 3 | 2])
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + value


def _credentials(certificate: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificate.read_bytes())


def main() -> None:
    """Measure once and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--sni")
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--metadata", action="append", default=[])
    parser.add_argument("--model", help="send ModelInferRequests for this model")
    parser.add_argument("--bytes", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--pause", type=float, default=0, help="between two calls of one caller, in seconds")
    parser.add_argument("--stream", action="store_true", help="messages of open streams in place of calls")
    parser.add_argument("--real-time", action="store_true", help="run ahead of all else on this machine, if permitted")
    arguments = parser.parse_args()
    print(json.dumps({"real_time": arguments.real_time and _go_ahead(), **asyncio.run(measure(arguments))}))


def _go_ahead() -> bool:
    """Give this process, and threads it starts from now on, real-time priority; returns whether that is permitted."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        return True
    return False


if __name__ == "__main__":
    main()
