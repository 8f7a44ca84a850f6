"""The table of what consumers found of models' images, as rows."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from contract.statuses import Finding
from private_api.columns import Base, Id, Instant, Word


class ImageFindingRow(Base):
    """What a consumer found when it last looked up the image of a version."""

    __tablename__ = "image_findings"

    consumer: Mapped[str] = mapped_column(String(200), ForeignKey("consumers.name"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(Id, ForeignKey("model_versions.id"), primary_key=True)
    finding: Mapped[Finding] = mapped_column(Word(16, Finding))
    detail: Mapped[str | None] = mapped_column(Text)
    found_at: Mapped[datetime] = mapped_column(Instant)
