"""Serves clients of IBM elastic distributed inference: `redhare.Inference`, its `auth` and its streams.

`auth` issues tokens that nobody stores: signed, for one deployment, with an expiry. A stream shows its token in its
first message, and the token says which deployment it is for.
"""

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator

import grpc

from contract.access import ANONYMOUS, Caller
from contract.tokens import Claims, TokenRefused, peek_subject, sign_token, stream_key, verify_token
from grpc_gateway.calls import Call, Target
from grpc_gateway.deployments import Deployment
from grpc_gateway.generated.stream_pb2 import AuthRequest, AuthResponse, Request
from grpc_gateway.handlers import LocalHandlers
from grpc_gateway.keys import Access, Keys
from grpc_gateway.protocols.messages import parse
from grpc_gateway.refusals import not_populated
from grpc_gateway.relay import Relay
from grpc_gateway.statuses import StatusError
from grpc_gateway.table import Table

AUTH = "/redhare.Inference/auth"
STREAM_INFER = "/redhare.Inference/stream_infer"
TOKEN_PATIENCE_S = 10.0
"""How long a stream may be open before its token comes."""


class Redhare:
    """Answers `auth`, and checks the token of a stream before its messages go to a replica."""

    def __init__(
        self, table: Table, relay: Relay, keys: Keys, service_token: str, *, url: str | None, token_lifetime_s: float
    ) -> None:
        """`url` is the `host:port` that clients stream to; without one, `auth` is refused."""
        self._table = table
        self._relay = relay
        self._keys = keys
        self._service_token = service_token
        self._url = url
        self._lifetime_s = token_lifetime_s

    def install(self, handlers: LocalHandlers) -> None:
        """Answer both methods. Their messages carry keys and tokens, so the calls need none in the metadata."""
        handlers.add_unary(AUTH, self.auth, Access.OPEN)
        handlers.add_stream(STREAM_INFER, self.stream_infer, Access.OPEN)

    async def auth(self, call: Call, request: bytes) -> bytes:
        """Answer with the address and the token for streams to a model."""
        if self._url is None:
            text = "Streams have no address here: the operator has to set GRPC_STREAM_URL."
            raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, text)
        attributes = parse(AuthRequest, request).attributes
        model = attributes.get("model_name", "")
        if not model:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "The attribute model_name is missing.")
        if userpasswd := attributes.get("userpasswd", ""):
            caller = await self._caller_named(*_parse_userpasswd(userpasswd))
        elif name := attributes.get("user_name", ""):
            caller = await self._caller_named(name, attributes.get("password", ""))
        elif token := attributes.get("token", ""):
            if "." in token:
                self._check_renewal(model, token)
                return AuthResponse(url=self._url, token=token).SerializeToString()
            caller = await self._keys.caller_of(token, Access.SUBMIT, is_inside=call.is_inside)
        else:
            # The key may also be in the metadata, as in every other call; in the open mode it may be missing.
            caller = await self._keys.caller_of(call.headers.key, Access.SUBMIT, is_inside=call.is_inside)
        deployment = self._find_model(model)
        deployment.require_use(caller.owner)
        return AuthResponse(url=self._url, token=self._issue(deployment, caller)).SerializeToString()

    async def _caller_named(self, name: str, password: str) -> Caller:
        """The caller with this name and password: the halves of a key. Where nobody needs one, any pass as none do."""
        try:
            return await self._keys.caller_of(f"is_{name}_{password}", Access.SUBMIT)
        except StatusError as error:
            if error.code is not grpc.StatusCode.UNAUTHENTICATED or self._keys.requires_key:
                raise
            return await self._keys.caller_of(None, Access.SUBMIT)

    async def stream_infer(self, call: Call) -> None:
        """Relay a stream whose first message is a valid token."""
        first = await self._first_message(call)
        claims = self._verify(_token_of(first))
        call.caller = Caller(claims.owner, ANONYMOUS.scopes, claims.key_id)
        deployment = self._table.deployments.get(claims.subject)
        if call.deployment is not None and call.deployment.id != claims.subject:
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"This token is for the model {claims.subject!r}; the prefix of the call leads to another one.",
            )
        if deployment is None:
            if not self._table.is_populated:
                raise not_populated()
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"The model {claims.subject!r} is not deployed any more.")
        deployment.require_use(claims.owner)
        await self._relay.stream(call, Target(deployment, STREAM_INFER), self._messages(call, first, claims.subject))

    async def _first_message(self, call: Call) -> bytes:
        try:
            async with asyncio.timeout(TOKEN_PATIENCE_S):
                first = await call.read()
        except TimeoutError as error:
            raise _unauthenticated(f"No token came within {TOKEN_PATIENCE_S:.0f} s.") from error
        if first is None:
            raise _unauthenticated("The stream ended before its token came.")
        return first

    async def _messages(self, call: Call, first: bytes, subject: str) -> AsyncIterator[bytes]:
        """The messages for the replica: the token too, which the replica verifies itself."""
        yield first
        async for message in call.requests():
            token = _token_of(message)
            if token is not None and self._verify(token).subject != subject:
                raise _unauthenticated(f"The token that came later is not for the model {subject!r}.")
            yield message

    def _find_model(self, name: str) -> Deployment:
        deployment = self._table.by_model.get(name) or self._table.deployments.get(name)
        if deployment is None:
            if not self._table.is_populated:
                raise not_populated()
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"No deployment serves the model {name!r}.")
        return deployment

    def _issue(self, deployment: Deployment, caller: Caller) -> str:
        claims = Claims(deployment.id, caller.owner, int(time.time() + self._lifetime_s), caller.key_id)
        return sign_token(stream_key(self._service_token, deployment.id), claims)

    def _check_renewal(self, model: str, token: str) -> None:
        """Check a token shown to `auth`, which answers the same one: a token that bought another would never end."""
        claims = self._verify(token)
        if self._find_model(model).id != claims.subject:
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED, f"This token is for the model {claims.subject!r}, not for {model!r}."
            )

    def _verify(self, token: str | None) -> Claims:
        if token is None:
            raise _unauthenticated("The first message of a stream is its token, not data: call auth, then send it.")
        try:
            claims = verify_token(stream_key(self._service_token, peek_subject(token)), token)
        except TokenRefused as error:
            raise _unauthenticated(f"The token is refused: {error}.") from error
        if claims.key_id in self._table.ended_keys:
            raise _unauthenticated("The key that this token was made for was revoked, or has expired.")
        return claims


def _parse_userpasswd(text: str) -> tuple[str, str]:
    """Name and password in base64 of `<name>:<password>`, which a shell's `base64` may have wrapped."""
    try:
        name, colon, secret = base64.b64decode("".join(text.split()), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _unauthenticated("The attribute userpasswd is not base64 of <name>:<password>.") from error
    if not colon:
        raise _unauthenticated("The attribute userpasswd holds no colon: it is base64 of <name>:<password>.")
    return name, secret


def _token_of(message: bytes) -> str | None:
    """The token in a stream's message, or None for data."""
    request = parse(Request, message)
    return request.token if request.WhichOneof("request_oneof") == "token" else None


def _unauthenticated(details: str) -> StatusError:
    return StatusError(grpc.StatusCode.UNAUTHENTICATED, details)
