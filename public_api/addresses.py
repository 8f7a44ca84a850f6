"""Where a request comes from."""

from fastapi import Request


def client_address(request: Request, *, behind_proxy: bool) -> str | None:
    """The IP address of the client, for the audit trail. Behind a proxy it is whoever connected to that.

    A proxy appends the address to `X-Forwarded-For`; what stands before it there is the client's own word.
    """
    if behind_proxy and (forwarded := request.headers.getlist("x-forwarded-for")):
        return forwarded[-1].rpartition(",")[2].strip()
    return request.client.host if request.client else None
