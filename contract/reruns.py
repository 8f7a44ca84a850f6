"""What a rerun of a task is asked with."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from contract.queries import TaskSubmission
from contract.schemas import Query


class RerunVersion(StrEnum):
    """Which version of its model a rerun runs."""

    SAME = "same"
    """The version that the first task ran."""
    DEFAULT = "default"
    """The version that a new submission gets."""


class TaskRerun(Query):
    """The query of `POST /api/tasks/{uid}/rerun`."""

    version: Annotated[
        RerunVersion,
        Field(description="`same`: the version that the first task ran; `default`: the one that a submission gets."),
    ] = RerunVersion.SAME
    priority: Annotated[int, TaskSubmission.model_fields["priority"]] = 0
