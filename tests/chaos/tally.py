"""Counts what became of a storm's tasks, past the server's doors where it must."""

import io
import zipfile
from collections import Counter
from dataclasses import dataclass, fields

import httpx
from sqlalchemy import create_engine, text

from tests.chaos.storm import Storm


@dataclass(frozen=True)
class Tally:
    """What became of the tasks. All but `wasted` must be 0."""

    lost: int
    """Acknowledged, and not there."""
    doubled: int
    """More tasks than submissions, or more ends than tasks."""
    wrong: int
    """Ended without an output, or with another one than its input asks for."""
    stuck: int
    """Not ended."""
    leaked: int
    """Containers, volumes and folders of runs that ended."""
    wasted: int
    """Attempts beyond one per task."""

    @property
    def is_clean(self) -> bool:
        """Whether every acknowledged task ended once, with the truth, and left nothing."""
        return not any(getattr(self, each.name) for each in fields(self) if each.name != "wasted")


def count(storm: Storm, database_url: str, leaked: list[str]) -> tuple[Tally, list[str]]:
    """The tally, and a line about each task that is wrong."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        rows = {
            row.uid: row
            for row in connection.execute(text("SELECT uid, status, reason, detail, attempts FROM tasks")).all()
        }
        ends = Counter(
            connection.execute(
                text(
                    "SELECT uid FROM events JOIN tasks ON tasks.id = task_id"
                    " WHERE new_status IN ('finished', 'failed', 'cancelled')"
                )
            ).scalars()
        )
    engine.dispose()
    wrong = [
        f"{uid[:8]} {row.status} {row.reason}: {row.detail}"
        for uid, row in rows.items()
        if row.status in ("failed", "cancelled")
    ]
    finished = {uid for uid, row in rows.items() if row.status == "finished"} & set(storm.acknowledged)
    with httpx.Client(base_url=storm.url, timeout=60, trust_env=False) as http:
        for uid in finished:
            answer = http.get(f"/api/tasks/{uid}/output")
            if answer.status_code != 200 or _number(answer.content) != storm.acknowledged[uid]:
                wrong.append(f"{uid[:8]} finished with an output that is not its own: {answer.status_code}")
    tally = Tally(
        lost=len(set(storm.acknowledged) - set(rows)),
        doubled=max(0, len(rows) - storm.tasks) + sum(1 for times in ends.values() if times > 1),
        wrong=len(wrong),
        stuck=sum(1 for row in rows.values() if row.status not in ("finished", "failed", "cancelled")),
        leaked=len(leaked),
        wasted=sum(max(0, row.attempts - 1) for row in rows.values()),
    )
    return tally, wrong


def table(storm: Storm, tally: Tally, details: list[str]) -> str:
    """What the command prints."""
    lines = [f"seed {storm.seed}: {storm.tasks} tasks under {sum(storm.faults.values())} faults"]
    lines += [f"  {number:5}  {fault}" for fault, number in sorted(storm.faults.items())]
    lines += [f"{each.name:8} {getattr(tally, each.name):5}" for each in fields(tally)]
    return "\n".join([*lines, *details])


def _number(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("number")
