"""The base of what the server answers, and how a notebook shows it."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from inference_client.markup import html_table


class Answer(BaseModel):
    """Base of what the server answers: immutable, and open to members that are unknown here."""

    model_config = ConfigDict(frozen=True)

    def _repr_html_(self) -> str:
        """In notebooks: every member that says something."""
        rows = [(name, _text(value)) for name, value in self if value is not None and value not in ("", [])]
        return html_table(type(self).__name__.removesuffix("View"), rows)


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(sep=" ", timespec="seconds")
    if isinstance(value, BaseModel):
        return ", ".join(f"{name}: {_text(member)}" for name, member in value if member is not None)
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return str(value)
