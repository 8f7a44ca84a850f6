"""Where a marked text is: in the columns of a database, in the names and contents of files."""

from pathlib import Path

from sqlalchemy import Engine, Text, cast, func, select

from private_api.backup.write import reflect_tables


def columns_with(engine: Engine, mark: str) -> set[str]:
    """The columns, of all tables, that have the mark in a row, as `table.column`."""
    found = set()
    with engine.connect() as connection:
        for table in reflect_tables(connection):
            for column in table.columns:
                has_mark = select(func.count()).where(cast(column, Text).contains(mark))
                if connection.scalar(has_mark):
                    found.add(f"{table.name}.{column.name}")
    return found


def files_with(root: Path, mark: str) -> set[str]:
    """The paths below a folder that have the mark in their name or, of a file, in its content."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if mark in path.name or _has(path, mark)}


def _has(path: Path, mark: str) -> bool:
    try:
        return path.is_file() and not path.is_symlink() and mark.encode() in path.read_bytes()
    except FileNotFoundError:
        # Removed meanwhile.
        return False
