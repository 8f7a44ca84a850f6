"""A stored zip whose bytes changed is never given out as if it were whole, and operators hear of it."""

import logging
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from contract.access import ANONYMOUS
from contract.claims import ClaimRequest
from contract.errors import OutputMissing
from contract.private_client import PrivateClient
from contract.schemas import Commit
from private_api.loops.scrub import Scrub
from private_api.placement.outlook import find_output
from private_api.soundness import count_damaged
from private_api.tables import ArchiveRow
from tests.integration.public_door import PLAIN, serve_door
from tests.integration.task_harness import Harness
from tests.running_api import run_private_api
from tests.zips import make_zip

DAY = timedelta(days=1)
MIB = 1024**2


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def finish(http: httpx.Client, consumer: PrivateClient, output: bytes) -> str:
    """Run a task with this output; returns its uid."""
    headers = {"Content-Type": "application/zip"}
    uid: str = http.post("/api/tasks/?human_readable_id=echo", content=make_zip(), headers=headers).json()
    held = consumer.claim(ClaimRequest(consumer="ada", uid=uid))
    assert held is not None
    stored = consumer.upload_output(uid, held.fence, [output])
    consumer.commit(uid, held.fence, Commit(consumer="ada", sha256=stored.sha256, size_bytes=stored.size_bytes))
    return uid


def test_a_damaged_result_is_cut_and_then_missing(sqlite_url: str, tmp_path: Path) -> None:
    cases = [(1000, flip), (2 * MIB, flip), (2 * MIB + 1, shorten), (1000, shorten), (1000, lengthen)]
    with (
        run_private_api(sqlite_url, tmp_path) as api,
        serve_door(api.url) as door,
        api.client() as http,
        api.consumer() as consumer,
        httpx.Client(base_url=door, **PLAIN) as user,
    ):
        http.post("/api/models/?human_readable_id=echo&container_tag=echo:1").raise_for_status()
        for number, (size, damage) in enumerate(cases):
            output = (bytes(range(256)) * (size // 256 + 1))[:size]
            uid = finish(http, consumer, output)
            assert user.get(f"/api/tasks/{uid}/output").content == output
            assert user.head(f"/api/tasks/{uid}/output").headers["content-length"] == str(size)
            assert http.get("/readyz").json().get("archives", "0 damaged").startswith(f"{number} damaged")
            (path,) = (tmp_path / "archives" / "outputs" / uid).iterdir()
            damage(path)
            with pytest.raises(httpx.RemoteProtocolError):
                user.get(f"/api/tasks/{uid}/output")
            later = user.get(f"/api/tasks/{uid}")
            assert (later.status_code, later.json()["error"]) == (553, "OutputMissing")
            assert "damaged" in later.json()["detail"]
        ready = user.get("/readyz")
        assert (ready.status_code, ready.json()["archives"][:9]) == (200, f"{len(cases)} damaged"[:9])


def test_the_scrub_finds_what_nobody_has_read_and_notices_that_it_was_restored(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    held = harness.submit_and_claim()
    harness.commit(held)
    found = find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    whole = harness.store.path(found.key).read_bytes()
    flip(harness.store.path(found.key))
    # Some bytes at a time: most steps end in the middle of a file.
    scrub = Scrub(harness.database, harness.store, bytes_per_step=len(whole) // 2)
    scrub.step()
    assert count_damaged(harness.database) == 0
    age(harness, DAY + timedelta(hours=1))
    for _ in range(50):
        scrub.step()
    assert count_damaged(harness.database) == 1
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert found.key in line
    with pytest.raises(OutputMissing, match="damaged"):
        find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS)
    harness.store.path(found.key).write_bytes(whole)
    age(harness, timedelta(hours=2))
    Scrub(harness.database, harness.store).step()
    assert count_damaged(harness.database) == 0
    assert find_output(harness.database, harness.store, harness.logs, held.uid, ANONYMOUS) == found


def test_a_scrub_goes_on_where_the_one_before_was(harness: Harness) -> None:
    for _ in range(3):
        harness.submit()
    age(harness, 2 * DAY)
    checked = select(ArchiveRow.id).where(ArchiveRow.checked_at.is_not(None)).order_by(ArchiveRow.id)
    seen = []
    for _ in range(4):
        # Each a process of its own, which reads one archive.
        Scrub(harness.database, harness.store, bytes_per_step=1024).step()
        with harness.database.read() as session:
            seen.append(len(session.scalars(checked).all()))
    assert seen == [1, 2, 3, 3]


def test_a_file_that_is_missing_is_damaged_unless_it_was_removed(harness: Harness) -> None:
    kept, removed = harness.submit(), harness.submit()
    age(harness, 2 * DAY)
    for uid in (kept, removed):
        harness.store.path(f"inputs/{uid}.zip").unlink()
    with harness.database.write() as session:
        row = session.scalars(select(ArchiveRow).where(ArchiveRow.key == f"inputs/{removed}.zip")).one()
        row.removed_at = harness.database.now(session)
    Scrub(harness.database, harness.store).step()
    assert count_damaged(harness.database) == 1


def age(harness: Harness, by: timedelta) -> None:
    """Let everything have been stored and read this much earlier."""
    with harness.database.write() as session:
        for row in session.scalars(select(ArchiveRow)):
            row.created_at -= by
            if row.checked_at is not None:
                row.checked_at -= by
