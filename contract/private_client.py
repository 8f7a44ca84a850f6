"""The private API as its consumers call it. Thread-safe; errors arrive as the classes of `contract.errors`."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from contract.archive_fetch import ArchiveSource, FetchCut, FetchRefused
from contract.claims import ClaimRequest
from contract.deployments import ReplicaAssignment, ReplicaBeat, ReplicaBeatReply, ReplicaClaim, ReplicaEnd
from contract.errors import InferenceError, PermissionDenied, ServiceUnavailable, Unauthenticated, error_from_body
from contract.heartbeats import Heartbeat, HeartbeatReply
from contract.image_lookups import ImageLookup, LookupResults
from contract.registration import Registered
from contract.schemas import ArchiveView, Assignment, Commit, ConsumerRegistration, Failure, Release, Settled

_CONNECT_S = 3
_ANSWER_S = 30
TIMEOUT = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
_TRANSFER_S = 300
_TRANSFER_TIMEOUT = httpx.Timeout(_TRANSFER_S, connect=_CONNECT_S)
"""Limits the silence within a transfer: the other side may be syncing a large file."""

ACCESS_ERRORS = (Unauthenticated, PermissionDenied)
"""What every call raises while the private API does not accept this consumer's credential."""

_MEANT_BY_PROXIES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
_GATEWAY_ERRORS = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

_Answer = TypeVar("_Answer", bound=BaseModel)


class PrivateClient:
    """One consumer's client of the private API. Any call may raise `ServiceUnavailable` or one of `ACCESS_ERRORS`."""

    def __init__(self, url: str, secret: str) -> None:
        """`secret` is the service token, or a key with the scope `consume`."""
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=TIMEOUT, trust_env=False
        )
        self._archives = ArchiveSource(url, secret, connect_s=_CONNECT_S, silence_s=_TRANSFER_S)
        self.is_refused = False
        """Whether the newest answer was one of `ACCESS_ERRORS`."""

    def register(self, registration: ConsumerRegistration) -> Registered:
        """Report that this consumer starts. Raises `Conflict` if another one has its GPU."""
        return Registered.model_validate(self._call("POST", "/internal/consumers", json=registration.model_dump()))

    def claim(self, request: ClaimRequest) -> Assignment | None:
        """Ask for a task; None if there is none to run."""
        answer = self._call("POST", "/internal/claims", json=request.model_dump())
        return None if answer is None else Assignment.model_validate(answer)

    def show(self, uid: str, fence: int) -> Assignment:
        """The assignment of an attempt that still holds its task."""
        return Assignment.model_validate(self._call("GET", _path(uid, fence)))

    def begin(self, uid: str, fence: int) -> Settled:
        """Whether an attempt that was prepared ahead may begin: its task is still `leased`. Else it is not ours."""
        return Settled.model_validate(self._call("POST", _path(uid, fence, "begin")))

    def beat(self, uid: str, fence: int, beat: Heartbeat) -> HeartbeatReply:
        """Extend the lease of an attempt."""
        return self._post(HeartbeatReply, uid, fence, "heartbeat", beat)

    def wait_for_cancel(self, uid: str, fence: int, wait_s: float) -> bool:
        """Whether the task is to end, as soon as somebody asks for it, else after `wait_s`."""
        timeout = httpx.Timeout(wait_s + _ANSWER_S, connect=_CONNECT_S)
        return bool(self._call("GET", _path(uid, fence, "cancel"), params={"wait": wait_s}, timeout=timeout))

    def commit(self, uid: str, fence: int, commit: Commit) -> Settled:
        """Make the uploaded output the result."""
        return self._post(Settled, uid, fence, "commit", commit)

    def fail(self, uid: str, fence: int, failure: Failure) -> Settled:
        """End the task as failed."""
        return self._post(Settled, uid, fence, "failure", failure)

    def release(self, uid: str, fence: int, release: Release) -> Settled:
        """Give the task back, to be queued again."""
        return self._post(Settled, uid, fence, "release", release)

    def append_log(self, uid: str, fence: int, offset: int, piece: bytes) -> int:
        """Add at most 1 MiB to the log; returns the offset after it."""
        answer = self._call("POST", _path(uid, fence, "log"), params={"offset": offset}, content=piece)
        return int(answer)

    def show_log_line(self, uid: str, fence: int, line: bytes) -> None:
        """Show the line that is being written, at most 1 KiB, below the log until that goes on; empty for none."""
        self._call("POST", _path(uid, fence, "log/line"), content=line)

    def fetch_input(self, uid: str, fence: int, target: Path) -> str:
        """Make `target` the task's zip, to be read and removed but never written to; returns its sha256."""
        return self._fetch(_path(uid, fence, "input"), target)

    def fetch_model(self, uid: str, fence: int, target: Path) -> str:
        """As `fetch_input`, of the model's zip."""
        return self._fetch(_path(uid, fence, "model"), target)

    def upload_output(self, uid: str, fence: int, pieces: Iterable[bytes]) -> ArchiveView:
        """Stream the output zip. Returns what arrived."""
        answer = self._call(
            "PUT",
            _path(uid, fence, "output"),
            content=_bytes_only(pieces),
            headers={"Content-Type": "application/zip"},
            timeout=_TRANSFER_TIMEOUT,
        )
        return ArchiveView.model_validate(answer)

    def claim_replica(self, claim: ReplicaClaim) -> ReplicaAssignment | None:
        """Ask for a replica to host; None if there is none."""
        answer = self._call("POST", "/internal/replicas/claims", json=claim.model_dump())
        return None if answer is None else ReplicaAssignment.model_validate(answer)

    def show_replica(self, uid: str, fence: int) -> ReplicaAssignment:
        """The assignment of a replica that this fence still holds."""
        return ReplicaAssignment.model_validate(self._call("GET", f"/internal/replicas/{uid}/{fence}"))

    def beat_replica(self, uid: str, fence: int, beat: ReplicaBeat) -> ReplicaBeatReply:
        """Extend the lease of a replica."""
        answer = self._call("POST", f"/internal/replicas/{uid}/{fence}/heartbeat", json=beat.model_dump())
        return ReplicaBeatReply.model_validate(answer)

    def fetch_replica_model(self, uid: str, fence: int, target: Path) -> str:
        """As `fetch_input`, of the zip of a replica's model."""
        return self._fetch(f"/internal/replicas/{uid}/{fence}/model", target)

    def end_replica(self, uid: str, fence: int, end: ReplicaEnd) -> None:
        """Report that a replica has ended."""
        self._call("POST", f"/internal/replicas/{uid}/{fence}/end", json=end.model_dump(mode="json"))

    def wait_for_lookups(self, consumer: str, wait_s: float) -> list[ImageLookup]:
        """The images that a consumer is to look up, as soon as there are any; none after `wait_s`."""
        timeout = httpx.Timeout(wait_s + _ANSWER_S, connect=_CONNECT_S)
        params: dict[str, str | float] = {"consumer": consumer, "wait": wait_s}
        answer = self._call("GET", "/internal/image-lookups", params=params, timeout=timeout)
        return [ImageLookup.model_validate(each) for each in answer]

    def report_lookups(self, found: LookupResults) -> None:
        """Tell what a consumer found."""
        self._call("POST", "/internal/image-lookups", json=found.model_dump(mode="json"))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _post(self, kind: type[_Answer], uid: str, fence: int, action: str, body: BaseModel) -> _Answer:
        return kind.model_validate(self._call("POST", _path(uid, fence, action), json=body.model_dump(mode="json")))

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise unreachable(error) from error
        self._check_answer(response)
        return response.json() if response.content else None

    def _fetch(self, path: str, target: Path) -> str:
        try:
            sha256 = self._archives.fetch(path, target)
        except FetchRefused as refused:
            self._check_answer(refused.answer)
            raise
        except FetchCut as error:
            raise ServiceUnavailable(f"the private API cannot be reached: {error}") from error
        self.is_refused = False
        return sha256

    def _check_answer(self, response: httpx.Response) -> None:
        """Raises the error that the answer carries, if any."""
        if response.is_success:
            self.is_refused = False
            return
        response.read()
        error = error_of(response)
        self.is_refused = isinstance(error, ACCESS_ERRORS)
        raise error


def _path(uid: str, fence: int, action: str | None = None) -> str:
    base = f"/internal/tasks/{uid}/attempts/{fence}"
    return base if action is None else f"{base}/{action}"


def _bytes_only(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # An empty piece would end a chunked body early.
    return (piece for piece in pieces if piece)


def unreachable(error: httpx.TransportError) -> ServiceUnavailable:
    """The error of a call that got no answer."""
    return ServiceUnavailable(f"the private API cannot be reached: {type(error).__name__}: {error}")


def error_of(response: httpx.Response) -> InferenceError:
    """The error that an answer carries. One that is not the private API's says little: a proxy's 404 ends no task."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    status = response.status_code
    if isinstance(body, dict) and ("error" in body or status in _MEANT_BY_PROXIES):
        return error_from_body(body, status)
    text = f"a server on the way to the private API answered {status}"
    return ServiceUnavailable(text) if status in _GATEWAY_ERRORS else InferenceError(text)
