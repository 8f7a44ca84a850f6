"""`infer call`: a live call of a deployed model."""

import base64
import binascii
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from inference_client.cli.completion import complete_application
from inference_client.cli.display import Display
from inference_client.cli.output import print_line
from inference_client.cli.server_options import server_options
from inference_client.errors import UnusableInput
from inference_client.units import parse_duration

FIRST_ANSWER_S = 1.75
"""A gRPC door that is silent is said within about two seconds. Its first answer takes longer than a connection."""
_STDIN = 0
_CHUNK_BYTES = 65536
_METADATA_KEY = r"[a-z0-9_.-]+"


def call(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="The deployed model: its id, or its application.", autocompletion=complete_application
        ),
    ],
    method: Annotated[
        str, typer.Argument(metavar="[SERVICE/]METHOD", help="The method, as in acme.Labeler/Label or Label.")
    ],
    request: Annotated[
        str,
        typer.Argument(
            metavar="[JSON|@FILE|-]",
            help="The request: JSON, a file with it, or stdin. Of a stream: one JSON per line.",
        ),
    ] = "{}",
    *,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Metadata of the call; VALUE is base64 if KEY ends in -bin."),
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="How long the call may take, as in 90, 15m or 2h.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print errors as JSON on stdout, too.")] = False,
) -> None:
    """Call a deployed model now and print each answer as one line of JSON."""
    try:
        from inference_client.live_calls import LiveCalls
    except ModuleNotFoundError as error:
        raise UnusableInput(
            "live calls need gRPC; install it with: pip install 'inferenceserver-client[grpc]'"
        ) from error
    display = Display(quiet=as_json)
    timeout_s = None if timeout is None else parse_duration(timeout)
    config = server_options(context).configure(display)
    sent: list[tuple[str, str | bytes]] = [("application", model), *map(_parse_metadata, metadata or ())]
    if config.grpc_key is not None:
        sent.append(("x-api-key", config.grpc_key))
    elif config.key is not None:
        display.warn(f"the stored key belongs to {config.server} and is not sent to {config.grpc}")
    with LiveCalls(config.grpc_endpoint(), metadata=sent, ca=config.ca) as calls:
        calls.wait_until_reached(FIRST_ANSWER_S)
        found = calls.find(method)
        one = "line" if found.takes_stream else "the request"
        for line in calls.call(found, _read_requests(request, lines=found.takes_stream), timeout_s=timeout_s, one=one):
            print_line(line)


def _parse_metadata(text: str) -> tuple[str, str | bytes]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(_METADATA_KEY, key) or key.startswith("grpc-"):
        raise UnusableInput(f"{text!r} is not metadata: write key=value with a key of a-z, 0-9, _, . and -")
    if key.endswith("-bin"):
        try:
            return key, base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise UnusableInput(f"the metadata {key} is not base64") from error
    if not value.isascii() or not value.isprintable():
        raise UnusableInput(f"the metadata {key} is not ASCII; use a key that ends in -bin and base64")
    return key, value


def _read_requests(text: str, *, lines: bool) -> Iterator[str]:
    """The JSON texts that the argument stands for; with `lines`, each as soon as its line is there."""
    if text != "-" and not text.startswith("@"):
        yield from _split([text.encode()], lines=lines)
        return
    path = None if text == "-" else Path(text[1:])
    descriptor = _STDIN if path is None else os.open(path, os.O_RDONLY)
    try:
        # Not through `sys.stdin`: gRPC reads on a thread of its own, which may still wait here as the interpreter ends.
        yield from _split(iter(lambda: os.read(descriptor, _CHUNK_BYTES), b""), lines=lines)
    finally:
        if path is not None:
            os.close(descriptor)


def _split(chunks: Iterator[bytes] | list[bytes], *, lines: bool) -> Iterator[str]:
    if not lines:
        yield b"".join(chunks).decode()
        return
    pieces: list[bytes] = []
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*pieces, end])
            pieces = []
            if line.strip():
                yield line.decode()
        pieces.append(rest)
    if (line := b"".join(pieces)).strip():
        yield line.decode()
