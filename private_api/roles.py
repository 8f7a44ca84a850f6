"""The role that the private API logs in with: it changes rows, but no table, and only adds to the audit trail.

Whoever takes over the private API can then do what it does, and neither rewrite the trail nor drop its guards. The role
that owns the tables makes it, and is used for nothing but migrations and restores.
"""

import hmac

from psycopg2.extensions import encrypt_password  # type: ignore[import-untyped]
from sqlalchemy import URL, Connection, make_url, text
from sqlalchemy.exc import ProgrammingError

from private_api.audit_tables import AuditEventRow, AuditLinkRow
from private_api.database import Database, lacks_right
from private_api.migrate import VERSION_TABLE, hold_off_migrations

SUFFIX = "_services"
_PURPOSE = b"inference-server: the services' login"
_GRANTS = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
    f"REVOKE UPDATE, DELETE ON {AuditEventRow.__tablename__}, {AuditLinkRow.__tablename__} FROM {{role}}",
    f"REVOKE INSERT, UPDATE, DELETE ON {VERSION_TABLE} FROM {{role}}",
)


class NoRoleError(Exception):
    """The database has no role for the services alone. The text says why."""


def make_services_role(database: Database) -> str:
    """Make the role, or set its rights and its password again; returns the URL to log in with.

    The password is derived from that of the given role, so that it is the same each time and says nothing of the other
    one. Raises `NoRoleError`, `ServiceUnavailable`.
    """
    url = make_url(database.url)
    if not url.username or not url.password:
        raise NoRoleError("the database is reached without a password")
    services = services_url(url)
    try:
        with database.load() as connection:
            hold_off_migrations(connection)
            _make(connection, str(services.username), str(services.password))
    except ProgrammingError as error:
        if not lacks_right(error):
            raise
        raise NoRoleError(f"the role {url.username} may not make another one") from error
    return services.render_as_string(hide_password=False)


def services_url(url: URL) -> URL:
    """The same database as the services log in to it."""
    password = hmac.new(str(url.password).encode(), _PURPOSE, "sha256").hexdigest()
    return url.set(username=f"{url.username}{SUFFIX}", password=password)


def _make(connection: Connection, name: str, password: str) -> None:
    role = connection.dialect.identifier_preparer.quote(name)
    is_there = connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name})
    # What PostgreSQL stores of it: a statement may be logged.
    verifier = encrypt_password(password, name, connection.connection.driver_connection, "scram-sha-256")
    # A new one has no right that is not given to it.
    verb = "ALTER" if is_there else "CREATE"
    connection.exec_driver_sql(f"{verb} ROLE {role} LOGIN PASSWORD '{verifier}'")
    for statement in _GRANTS:
        connection.exec_driver_sql(statement.format(role=role))
