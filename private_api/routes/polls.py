"""`/internal/polls`: polls that doors make together."""

from typing import Annotated

from fastapi import APIRouter, Header

from contract.access import DOOR_POLICY_HEADER, DoorPolicy
from contract.errors import QuotaExceeded
from contract.polls import PollAnswers, PollBatch
from kit.http_errors import render_error
from private_api.placement.polls import answer_polls
from private_api.routes.access import callers_at
from private_api.routes.json_bodies import JsonRouter
from private_api.services import Services


def poll_routes(services: Services) -> APIRouter:
    router = JsonRouter(prefix="/internal/polls", tags=["tasks"])

    @router.post("")
    def answer_together(
        body: PollBatch, policy: Annotated[str | None, Header(alias=DOOR_POLICY_HEADER)] = None
    ) -> PollAnswers:
        """Answer those polls whose tasks are queued. A door relays the others one by one."""
        door = DoorPolicy.from_header(policy)
        callers = callers_at(door, services.database, {poll.key for poll in body.polls})
        known = [number for number, poll in enumerate(body.polls) if poll.key in callers]
        asked = [(body.polls[number].uid, callers[body.polls[number].key]) for number in known]
        bodies: list[str | None] = [None] * len(body.polls)
        answers = answer_polls(services.database, asked, services.recent)
        for number, (_, caller), answer in zip(known, asked, answers, strict=True):
            if answer is None:
                continue
            try:
                services.count_request(caller)
            except QuotaExceeded:
                # The poll that is relayed is told.
                continue
            bodies[number] = bytes(render_error(answer).body).decode()
        return PollAnswers(bodies=bodies)

    return router
