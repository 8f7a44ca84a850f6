"""What the shell offers after Tab: models, deployments and tasks of the server that the command line names.

A shell that waits, or shows an error in the middle of a line, is worse than one that offers nothing: the server is
asked briefly and only once, and what it does not answer is not offered.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, NoReturn

import typer

from inference_client.config import ClientConfig, environment, load_config, submissions_path
from inference_client.errors import ReportedError, ServiceUnavailable
from inference_client.submissions import Submissions
from inference_client.terminal_text import one_line

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

ANSWER_S = 1.0
CONNECT_S = 0.5
MOST_OFFERED = 200
LAST = "@last"

Offer = tuple[str, str]
"""A value and what the shell may show beside it."""


def complete_model(context: typer.Context, incomplete: str) -> list[Offer]:
    """The registered models."""
    return _choose(
        incomplete,
        _ask(context, lambda client: ((model.human_readable_id, model.description) for model in client.list_models())),
    )


def complete_deployment(context: typer.Context, incomplete: str) -> list[Offer]:
    """The deployed models."""
    return _choose(
        incomplete,
        _ask(
            context, lambda client: ((view.human_readable_id, str(view.status)) for view in client.list_deployments())
        ),
    )


def complete_application(context: typer.Context, incomplete: str) -> list[Offer]:
    """The names by which live calls reach the deployed models."""
    return _choose(
        incomplete,
        _ask(
            context,
            lambda client: (
                (view.serving.application or view.human_readable_id, str(view.status))
                for view in client.list_deployments()
            ),
        ),
    )


def complete_consumer(context: typer.Context, incomplete: str) -> list[Offer]:
    """The consumers."""
    return _choose(
        incomplete, _ask(context, lambda client: ((view.name, str(view.status)) for view in client.list_consumers()))
    )


def complete_uid(context: typer.Context, incomplete: str) -> list[Offer]:
    """The tasks submitted from this machine, and the newest ones of the key's owner."""
    remembered: list[Offer] = []

    def offer(client: "InferenceClient") -> Iterable[Offer]:
        remembered.extend(
            (task.uid, task.model) for task in Submissions(submissions_path(environment())).of(client.server)
        )
        return ((task.uid, f"{task.human_readable_id}, {task.status}") for task in client.list_tasks())

    listed = _ask(context, offer)
    last = [(LAST, "the task submitted last from here")] if remembered else []
    return _choose(incomplete, dict([*last, *remembered, *listed]).items())


def _choose(incomplete: str, offers: Iterable[Offer]) -> list[Offer]:
    # The shell writes both to the terminal.
    return [(value, one_line(text)) for value, text in offers if value.startswith(incomplete) and value.isprintable()]


def _ask(context: typer.Context, offer: "Callable[[InferenceClient], Iterable[Offer]]") -> list[Offer]:
    # Imported late: the commands are shown without the HTTP client, which takes longest to import.
    from inference_client.client import InferenceClient

    try:
        config = _config(context)
        with InferenceClient(
            config.server,
            key=config.key,
            verify=config.ca or True,
            timeout_s=ANSWER_S,
            first_contact_s=CONNECT_S,
            sleep=_give_up,
        ) as client:
            return list(islice(offer(client), MOST_OFFERED))
    except (ReportedError, OSError):
        return []


def _config(context: typer.Context) -> ClientConfig:
    # The callback, which makes the options of every other command, does not run while a line is completed.
    given = context.find_root().params
    return load_config(
        environment(), server=given.get("server"), grpc=given.get("grpc"), key=given.get("key"), ca=given.get("ca")
    )


def _give_up(_: float) -> NoReturn:
    """In place of a pause before another try."""
    raise ServiceUnavailable
