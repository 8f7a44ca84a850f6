"""Reads the log and the output of a container, which are framed, and can stop while the container is silent."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from socket import socket
from threading import Event
from typing import Any

import docker
from docker.errors import create_api_error_from_http_exception
from requests import HTTPError, Response

from kit.threads import SupervisedThread

HEADER = struct.Struct(">BxxxL")
"""Which stream, and how many bytes follow."""
STOP_CHECK_S = 0.2
TAIL_ENTRIES = 64
"""Of the Engine's log, each at most 16 KiB: bounds what a tail reads."""


def follow_log(client: docker.APIClient, container: str, stop: Event) -> Iterator[bytes]:
    """The log from its beginning, as it is written, until the container ends or `stop` is set."""
    count = 0
    for piece in read_frames(_open_log(client, container, follow=True), stop):
        count += len(piece)
        yield piece
    if stop.is_set():
        return
    # Up to 20.10 the Engine may end the stream before it has written down a last line that has no end.
    client.wait(container)
    for piece in read_frames(_open_log(client, container, follow=False), stop):
        if len(piece) > count:
            yield piece[count:]
        count = max(0, count - len(piece))


def follow_output(client: docker.APIClient, container: str, stop: Event) -> Iterator[bytes]:
    """What the container writes from now on, as it writes it, until it ends or `stop` is set.

    The Engine keeps 1 MB for a reader that does not read; then the container waits.
    """
    yield from read_frames(_open(client, "POST", container, "attach", stream=1), stop)


def _open_log(client: docker.APIClient, container: str, *, follow: bool) -> Response:
    return _open(client, "GET", container, "logs", follow=int(follow))


def _open(client: docker.APIClient, method: str, container: str, call: str, **params: int) -> Response:
    """The response of a call of the Engine that streams.

    docker-py's `logs` mistakes a broken connection for the end of the log.
    """
    response = client.request(
        method,
        f"{client.base_url}/v{client.api_version}/containers/{container}/{call}",
        params={"stdout": 1, "stderr": 1, **params},
        stream=True,
        timeout=client.timeout,
    )
    try:
        response.raise_for_status()
    except HTTPError as error:
        create_api_error_from_http_exception(error)
    # From here on it is the run that is silent, not the Engine.
    if (connection := _socket_of(response)) is not None:
        connection.settimeout(None)
    return response


def _socket_of(response: Response) -> socket | None:
    """None if the whole response is here."""
    raw: Any = response.raw
    found: socket | None = raw.connection and raw.connection.sock
    if raw.connection is not None and found is None and raw._fp.fp is not None:
        # A response without a length ends with its connection, so http.client has given the socket away to it.
        found = raw._fp.fp.raw._sock
    return found


def read_tail(client: docker.APIClient, container: str, max_bytes: int) -> bytes:
    """The last bytes of the log as it is now."""
    log: bytes = client.logs(container, stdout=True, stderr=True, stream=False, tail=TAIL_ENTRIES)
    return log[-max_bytes:]


def read_frames(response: Response, stop: Event) -> Iterator[bytes]:
    """The payload of the frames until the log ends or `stop` is set; closes the response."""
    done = Event()
    SupervisedThread(
        "log-stop", lambda: _shut_down_on(stop, done, response), pause_s=STOP_CHECK_S, stopped=done
    ).start()
    try:
        while header := response.raw.read(HEADER.size):
            if len(header) < HEADER.size:
                raise ConnectionError("the log broke off")
            payload = response.raw.read(HEADER.unpack(header)[1])
            if payload:
                yield payload
    except Exception:
        if not stop.is_set():
            raise
    finally:
        done.set()
        response.close()


def _shut_down_on(stop: Event, done: Event, response: Response) -> None:
    """Wake the reader, which is blocked in the socket and can watch no event."""
    while not done.is_set():
        if stop.wait(STOP_CHECK_S):
            # They mean that the log ended in the same moment: its connection went back to the pool.
            with suppress(OSError, RuntimeError, ValueError):
                response.raw.shutdown()
            return
