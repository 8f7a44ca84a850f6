"""The uids that people type: whole ones, their beginnings, `@last`, and what was pasted around them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from inference_client.cli.completion import LAST, complete_uid
from inference_client.cli.display import Display
from inference_client.cli.suggestions import find_close
from inference_client.config import environment, submissions_path
from inference_client.errors import PermissionDenied, TaskNotFound, Unauthenticated, UnusableInput
from inference_client.submissions import Submissions

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

UID_LENGTH = 64
SHORTEST = 4
"""Characters that a shortened uid has at least."""
RECENT = 500
"""Among how many of the newest tasks of a key's owner a shortened uid is looked for."""

_UID = typer.Argument(
    metavar="UID",
    help="The task's uid, as `infer submit` printed it; its first characters; or @last.",
    autocompletion=complete_uid,
)
UidArgument = Annotated[str, _UID]
OptionalUid = Annotated[str | None, _UID]


@contextmanager
def named_task(client: "InferenceClient", typed: str) -> Iterator[str]:
    """The whole uid of the task that the user means. A `TaskNotFound` also says which one may have been meant.

    Raises `TaskNotFound` if no task is meant, and `UnusableInput` if more than one is.
    """
    uid = find_uid(client, typed)
    try:
        yield uid
    except TaskNotFound as error:
        if close := find_close(uid, _remembered(client)):
            error.fields["did_you_mean"] = close[:1]
        raise


def find_uid(client: "InferenceClient", typed: str) -> str:
    """The uid that `typed` stands for. What is neither short nor `@last` is left to the server to judge."""
    text = re.sub(r"[\s\"'`]", "", typed)
    if text == LAST:
        return _find_last(client)
    lower = text.lower()
    if not re.fullmatch(rf"[0-9a-f]{{1,{UID_LENGTH}}}", lower):
        return text
    if len(lower) == UID_LENGTH:
        return lower
    if len(lower) < SHORTEST:
        raise UnusableInput(f"{text} is too short for a uid; write at least its first {SHORTEST} characters")
    known = dict.fromkeys([*_remembered(client), *_listed(client)])
    found = [uid for uid in known if uid.startswith(lower)]
    if len(found) > 1:
        raise UnusableInput(f"{len(found)} tasks begin with {text}; write more of the uid: {', '.join(found[:3])}")
    if not found:
        error = TaskNotFound(f"none of your recent tasks begins with {text}; write the whole uid")
        alike = {uid[: len(lower)]: uid for uid in known}
        if close := find_close(lower, alike):
            error.fields["did_you_mean"] = [alike[beginning] for beginning in close]
        raise error
    return found[0]


def labelled_tasks(client: "InferenceClient", label: str) -> list[str]:
    """The tasks with this label, the newest first: of the key's owner, and those submitted from this machine.

    Raises `TaskNotFound` if there are none.
    """
    here = Submissions(submissions_path(environment())).of(client.server)
    remembered = [submission.uid for submission in here if submission.label == label]
    found = list(dict.fromkeys([*_listed(client, label=label), *remembered]))
    if not found:
        raise TaskNotFound(f"none of your tasks has the label {label!r}")
    return found


def remember(display: Display, client: "InferenceClient", uid: str, model: str, label: str | None = None) -> None:
    """Let later commands of this machine know the task. The task itself is safe already: a failure is only shown."""
    path = submissions_path(environment())
    try:
        Submissions(path).add(client.server, uid, model, label)
    except OSError as error:
        display.warn(f"{path} cannot be written ({error.strerror}): {LAST} does not know this task")


def _find_last(client: "InferenceClient") -> str:
    remembered = _remembered(client)
    if not remembered:
        raise TaskNotFound(f"{LAST}: nothing was submitted from here to {client.server} yet; write the whole uid")
    return remembered[0]


def _remembered(client: "InferenceClient") -> list[str]:
    return [submission.uid for submission in Submissions(submissions_path(environment())).of(client.server)]


def _listed(client: "InferenceClient", label: str | None = None) -> list[str]:
    try:
        return [task.uid for task in islice(client.list_tasks(label=label), None if label else RECENT)]
    except (Unauthenticated, PermissionDenied):
        # Without a key there is no list; a key may also serve for other things only.
        return []
