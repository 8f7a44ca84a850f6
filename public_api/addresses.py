"""Where a request comes from."""

from fastapi import Request


def client_address(request: Request, *, behind_proxy: bool) -> str | None:
    """The IP address of the client, for the audit trail; behind a proxy, what that says.

    Traefik and ingress-nginx set `X-Real-Ip`, and pass on only what a proxy sent that they were told to trust.
    """
    if behind_proxy and (said := request.headers.get("x-real-ip")):
        return said
    return request.client.host if request.client else None
