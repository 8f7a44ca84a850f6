"""How calls end: `StatusError` is any status but OK, whichever side it comes from."""

from urllib.parse import quote

import grpc

from contract.errors import InferenceError

Metadata = tuple[tuple[str, str | bytes], ...]

MAX_DETAILS_CHARACTERS = 4096
_MAX_DETAILS_ENCODED = 6144
"""Details travel percent-encoded beside the trailers, and clients refuse more than 8 KiB of the two together."""


class StatusError(Exception):
    """Ends a call with this status. It carries no request id: the door adds that."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Metadata = ()) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = trailers


def status_error_of(error: InferenceError) -> StatusError:
    """The status that stands for an error of the private API."""
    return StatusError(grpc.StatusCode[error.grpc_code], error.detail)


def status_error_of_call(error: grpc.aio.AioRpcError) -> StatusError:
    """The status with which a replica, or the connection to it, ended a call."""
    trailers = error.trailing_metadata()
    return StatusError(error.code(), error.details() or "", tuple(trailers) if trailers else ())


def shorten(details: str) -> str:
    """As much of `details` as a client's limits let through."""
    details = details[:MAX_DETAILS_CHARACTERS]
    while len(encoded := quote(details, safe=_PRINTABLE)) > _MAX_DETAILS_ENCODED:
        details = details[: len(details) * _MAX_DETAILS_ENCODED // len(encoded)]
    return details


_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
