"""Reads the requests that the gateway answers itself."""

from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from grpc_gateway.statuses import StatusError

M = TypeVar("M", bound=Message)


def parse(kind: type[M], message: bytes) -> M:
    """The request in `message`. Raises `StatusError` if the bytes are not of this kind."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        text = f"The message is no {kind.DESCRIPTOR.full_name}."
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, text) from error
