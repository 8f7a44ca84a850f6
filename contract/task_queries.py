"""The queries of the calls about tasks."""

from typing import Annotated

from pydantic import Field

from contract.schemas import MODEL_REFERENCE_LENGTH, Label, Query


class TaskSubmission(Query):
    """The query of `POST /api/tasks/`: one of the two names must be given."""

    human_readable_id: Annotated[
        str | None,
        Field(
            max_length=MODEL_REFERENCE_LENGTH,
            description="The model to run: its id for its default version, or `<id>@<version>` for a certain one.",
        ),
    ] = None
    model_human_readable_id: Annotated[
        str | None,
        Field(max_length=MODEL_REFERENCE_LENGTH, description="Another accepted name of `human_readable_id`."),
    ] = None
    priority: Annotated[
        int,
        Field(ge=-100, le=100, description="Higher ones run first; more than 0 needs a key with the scope `operate`."),
    ] = 0
    label: Annotated[
        Label | None, Field(description="A name for the tasks of one batch, by which they can be listed.")
    ] = None


class TaskPoll(Query):
    """The query of `GET /api/tasks/{uid}` and of its status."""

    wait: Annotated[float, Field(ge=0, le=60, description="Hold the answer for up to this many seconds.")] = 0


class LogQuery(Query):
    """The query of `GET /api/tasks/{uid}/logs`."""

    follow: Annotated[bool, Field(description="Stream the log until the task ends.")] = False
