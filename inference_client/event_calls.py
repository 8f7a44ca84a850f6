"""Follows what happens on the server. A stream that is cut is taken up where it was: no change of a task is lost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inference_client.client_base import ClientBase
from inference_client.connection import TRIES
from inference_client.errors import ServiceUnavailable
from inference_client.event_schemas import DATA, ServerEvent
from inference_client.statuses import EventType

RETURNS = 16
"""How often a server that told something before is asked again: for about five minutes."""


class EventCalls(ClientBase):
    """Part of `InferenceClient`."""

    def watch(
        self, *, types: Sequence[EventType | str] = (), uids: Sequence[str] = (), after: int | None = None
    ) -> Iterator[ServerEvent]:
        """What happens from now on, or after the event `after`, for as long as it is asked for the next.

        Of tasks every change that this key may see; `uids` narrows them down and also shows tasks that were submitted
        without a key. Of consumers, deployments and the queue how they stand, at first, whenever that changes, and
        again after the connection was lost. Raises `TooManyStreams`, and `ServiceUnavailable` if the server is gone
        for five minutes.
        """
        given = {"type": [str(word) for word in types], "uid": list(uids)}
        params: dict[str, str | list[str]] = {name: values for name, values in given.items() if values}
        place, failures, tries = after, 0, TRIES
        while True:
            headers = {} if place is None else {"Last-Event-ID": str(place)}
            try:
                with self._connection.open("GET", "/api/events", params=params, headers=headers) as response:
                    for block in _blocks(response.iter_bytes()):
                        failures, tries = 0, RETURNS
                        place = place if block.id is None else block.id
                        if block.data and block.type in DATA:
                            data = self._parse(DATA[block.type], block.data)
                            yield ServerEvent(EventType(block.type), data, place or 0)
                lost = ServiceUnavailable(f"{self.server} ended the stream of events")
            except ServiceUnavailable as error:
                lost = error
            failures += 1
            self._connection.pause_or_raise(lost, failures, tries=tries)


@dataclass(frozen=True)
class _Block:
    """One event as it is sent."""

    type: str
    id: int | None
    data: bytes


def _blocks(pieces: Iterator[bytes]) -> Iterator[_Block]:
    # Bytes, not lines of text: what Python and httpx take for the end of a line may stand inside of JSON.
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece.replace(b"\r", b"")).split(b"\n\n")
        yield from map(_read_block, whole)


def _read_block(block: bytes) -> _Block:
    found: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        found[name] = value.removeprefix(b" ")
    id_ = found.get(b"id", b"")
    return _Block(found.get(b"event", b"").decode(), int(id_) if id_.isdigit() else None, found.get(b"data", b""))
