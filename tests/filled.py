"""Databases full of tasks, made by the database itself: for what is tested or measured among many rows."""

from sqlalchemy import Connection, text

from private_api.database import Database

_NUMBERS = (
    "WITH RECURSIVE numbers(n) AS"
    " (SELECT CAST(:above AS integer) + 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :above + :count)"
)
_UID = {"postgresql": "lpad(to_hex(n), 64, '0')", "sqlite": "printf('%064x', n)"}
_AGO = {
    "postgresql": "clock_timestamp() - n * interval '1 second'",
    "sqlite": r"strftime('%Y-%m-%d %H\:%M\:%f000', 'now', '-' || n || ' seconds')",
}
_FALSE = {"postgresql": "false", "sqlite": "0"}
_MODEL = (
    "INSERT INTO models (id, human_readable_id, newest_version, restricted, created_at)"
    " SELECT 1000, 'filled', 1, {false}, {ago} FROM (SELECT 1 AS n) AS one"
)
_VERSION = (
    "INSERT INTO model_versions (id, model_id, number, container_tag, pin, description, use_gpu, pull_policy,"
    " isolation, time_limit_s, strict_output, created_at)"
    " SELECT 1000, 1000, 1, 'echo:1', {false}, '', {false}, 'missing', 'strict', 60, {false}, {ago}"
    " FROM (SELECT 1 AS n) AS one"
)
_INPUTS = (
    "INSERT INTO archives (id, key, sha256, size_bytes, created_at, checked_at) {numbers}"
    " SELECT n, 'inputs/' || {uid} || '.zip', {uid}, 1000, {ago}, {ago} FROM numbers"
)
_OUTPUTS = (
    "INSERT INTO archives (id, key, sha256, size_bytes, created_at, checked_at) {numbers}"
    " SELECT :count + n, 'outputs/' || {uid} || '/1.zip', {uid}, 1000, {ago}, {ago} FROM numbers"
)
_ENDED = (
    "INSERT INTO tasks (id, uid, model_version_id, use_gpu, priority, status, fence, attempts, crashes,"
    " infrastructure_failures, not_before, input_id, output_id, exit_code, warning_count, created_at, started_at,"
    " ended_at)"
    " {numbers} SELECT n, {uid}, 1000, {false}, 0, 'finished', 1, 1, 0, 0, {ago}, n, :count + n, 0, 0, {ago}, {ago},"
    " {ago} FROM numbers"
)
_ATTEMPTS = (
    "INSERT INTO attempts (task_id, fence, consumer, claimed_at, ended_at, outcome) {numbers}"
    " SELECT n, 1, 'filled', {ago}, {ago}, 'finished' FROM numbers"
)
_QUEUED = (
    "INSERT INTO tasks (id, uid, model_version_id, use_gpu, priority, status, fence, attempts, crashes,"
    " infrastructure_failures, not_before, input_id, warning_count, created_at)"
    " {numbers} SELECT n, {uid}, 1000, {false}, 0, 'queued', 0, 0, 0, 0, {ago}, n, 0, {ago} FROM numbers"
)


def fill_with_ended_tasks(database: Database, count: int) -> None:
    """Fill a database that has no task yet with finished tasks, one that ended in each of the last `count` seconds.

    Each has rows of an input and an output, without files, an attempt, and the event that a trigger writes.
    """
    _fill(database, count, _MODEL, _VERSION, _INPUTS, _OUTPUTS, _ENDED, _ATTEMPTS)


def queue_beside_ended_tasks(database: Database, count: int, ended: int) -> None:
    """Let so many tasks wait in a database that was filled with `ended` ones, the one that has waited longest first."""
    # Above the ids of the ended tasks' archives, of which each has two.
    _fill(database, count, _INPUTS, _QUEUED, above=2 * ended)


def uid_of(number: int) -> str:
    """The uid of a task, from 1 up."""
    return f"{number:064x}"


def _fill(database: Database, count: int, *statements: str, above: int = 0) -> None:
    with database.load() as connection:
        for statement in statements:
            _execute(database, connection, statement, count, above)
        if not database.is_sqlite:
            for table in ("models", "model_versions", "archives", "tasks"):
                connection.execute(
                    text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))")  # noqa: S608 - the names above
                )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # As the database does by itself in the days in which so many tasks come.
        connection.execute(text("ANALYZE" if database.is_sqlite else "VACUUM ANALYZE"))


def _execute(database: Database, connection: Connection, statement: str, count: int, above: int) -> None:
    kind = database.engine.dialect.name
    words = {"uid": _UID[kind], "ago": _AGO[kind], "false": _FALSE[kind]}
    filled = text(statement.format(numbers=_NUMBERS, **words))
    connection.execute(filled, {"count": count, "above": above} if ":count" in filled.text else {})


def requeue_copies(database: Database, uid: str, count: int, *, above: int = 0) -> None:
    """Queue so many copies of a task that waits, one for each of the last seconds, with the same input.

    `above` is how many were made before.
    """
    copied = (
        "model_version_id, use_gpu, priority, status, fence, attempts, crashes, infrastructure_failures, not_before,"
        " input_id, warning_count, created_at"
    )
    numbered = _UID[database.engine.dialect.name]
    statement = (
        f"INSERT INTO tasks (uid, {copied}) {_NUMBERS} SELECT {numbered}, {copied} FROM numbers, tasks WHERE uid = :uid"  # noqa: S608
    )
    with database.load() as connection:
        connection.execute(text(statement), {"count": count, "above": above, "uid": uid})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
