"""The tables of the audit trail, as rows. Triggers keep them append-only; the services' role cannot change them."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from private_api.columns import Base, Id, Instant


class Action(StrEnum):
    """What somebody did. Rows keep the words, so none is ever renamed."""

    SUBMIT_TASK = "task.submit"
    RERUN_TASK = "task.rerun"
    CANCEL_TASK = "task.cancel"
    DELETE_TASK = "task.delete"
    READ_INPUT = "task.read_input"
    READ_OUTPUT = "task.read_output"
    READ_LOG = "task.read_log"
    REGISTER_MODEL = "model.register"
    CHANGE_MODEL = "model.change"
    DELETE_MODEL = "model.delete"
    DEPLOY_MODEL = "model.deploy"
    UNDEPLOY_MODEL = "model.undeploy"
    CREATE_KEY = "key.create"
    REPLACE_KEY = "key.replace"
    REVOKE_KEY = "key.revoke"
    BACK_UP = "server.back_up"
    RESTORE = "server.restore"


class AuditEventRow(Base):
    """Who did what to which object, from where and when. It names no file and no patient."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    owner: Mapped[str | None] = mapped_column(String(128))
    """The owner of the key. NULL without a key, and for commands on the server."""
    key_id: Mapped[str | None] = mapped_column(String(16))
    """The public part of the key."""
    address: Mapped[str | None] = mapped_column(String(64))
    """The client's, as the door saw it; `command` for commands on the server. NULL if the door did not say."""
    request_id: Mapped[str | None] = mapped_column(String(128))
    """As in the lines that the services log of the request."""
    action: Mapped[str] = mapped_column(String(32))
    """A word of `Action`, or of a newer release's."""
    object: Mapped[str] = mapped_column(String(300))
    """A task's uid, a model's id or `<id>@<version>`, the id of a key."""
    detail: Mapped[str | None] = mapped_column(Text)


class AuditLinkRow(Base):
    """A link of the chain: an event, and a digest of it and of all before it."""

    __tablename__ = "audit_links"

    position: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    """From 1 on, without gaps."""
    event_id: Mapped[int] = mapped_column(Id, ForeignKey("audit_events.id"), unique=True)
    """Larger with each link."""
    hash: Mapped[str] = mapped_column(String(64))
