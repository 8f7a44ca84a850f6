"""What consumers look up of the images of models, and what they found."""

from typing import Annotated

from pydantic import Field

from contract.schemas import FindingDetail, Message, PullPolicy, RanImage
from contract.statuses import Finding

MAX_FINDINGS = 100
"""In one message."""


class ImageLookup(Message):
    """A consumer is to look whether it could run the image of a version."""

    human_readable_id: str
    model_version: int
    container_tag: str
    pull_policy: PullPolicy


class LookupResult(Message):
    """What it found."""

    human_readable_id: str
    model_version: int
    finding: Finding
    detail: FindingDetail = None
    digest: Annotated[
        RanImage, Field(description="The image as `name@sha256:...`; null if no registry gave it one.")
    ] = None


class LookupResults(Message):
    """What a consumer found."""

    consumer: str
    results: Annotated[list[LookupResult], Field(max_length=MAX_FINDINGS)]
