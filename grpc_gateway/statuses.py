"""How calls end: `Refusal` is a status that is not OK, from whichever side it comes."""

from urllib.parse import quote

import grpc

from contract.errors import InferenceError

Metadata = tuple[tuple[str, str | bytes], ...]

MAX_DETAILS_CHARACTERS = 4096
_MAX_DETAILS_ENCODED = 6144
"""Details travel percent-encoded beside the trailers, and clients refuse more than 8 KiB of both."""


class Refusal(Exception):
    """Ends a call with this status. What raises it needs to know nothing of request ids: the door adds them."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Metadata = ()) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailers = trailers


def refusal_of(error: InferenceError) -> Refusal:
    """An error of the private API as its status."""
    return Refusal(grpc.StatusCode[error.grpc_code], error.detail)


def refusal_of_call(error: grpc.aio.AioRpcError) -> Refusal:
    """The status that a replica ended its call with, or that the connection to it ended with."""
    trailers = error.trailing_metadata()
    return Refusal(error.code(), error.details() or "", tuple(trailers) if trailers else ())


def shorten(details: str) -> str:
    """`details` as far as a client's limits let it arrive."""
    details = details[:MAX_DETAILS_CHARACTERS]
    while len(encoded := quote(details, safe=_PRINTABLE)) > _MAX_DETAILS_ENCODED:
        details = details[: len(details) * _MAX_DETAILS_ENCODED // len(encoded)]
    return details


_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
