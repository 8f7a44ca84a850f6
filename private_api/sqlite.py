"""How connections to SQLite are opened, and how transactions begin there."""

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, event


def prepare_sqlite(engine: Engine) -> None:
    """Before the first connection."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would begin transactions lazily; `on_begin` begins them instead.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # What is removed is overwritten, and not left in the file until its place is needed.
        connection.execute("PRAGMA secure_delete=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # Under WAL a reader that turns writer in mid-transaction fails at once: writers lock from the start.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
