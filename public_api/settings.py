"""The environment variables of the public API."""

from typing import Annotated

from pydantic import Field, SecretStr

from kit.settings import Secret, Settings, Switch
from public_api.cors import Origins
from public_api.sites import Hosts


class PublicApiSettings(Settings):
    """All settings of the public API, read once in `__main__`."""

    service_token: Secret = Field(SecretStr(""), description="What the door authenticates with at the private API.")
    # Plain HTTP: to the relay, a TLS session ticket would look like an early answer.
    private_api_url: Annotated[str, Field(pattern=r"^http://[^/?#\s]+$")] = "http://private-api:8001"
    public_api_host: str = "0.0.0.0"  # noqa: S104 - inside its container, behind Traefik
    public_api_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    allow_public_post_model: Annotated[
        Switch,
        Field(description="Whether everybody may register models: any value but 0, false, no and off allows it."),
    ] = False
    require_api_key: Annotated[
        Switch, Field(description="Whether every call needs a key: any value but 0, false, no and off asks for one.")
    ] = False
    cors_origins: Annotated[
        Origins, Field(description="The origins whose pages browsers let use the server, with spaces between.")
    ] = ()
    proxy_domain: str = ""
    allowed_hosts: Annotated[
        Hosts,
        Field(description="Further names of this server, with spaces between; `*.example.org` for all below one."),
    ] = ()
