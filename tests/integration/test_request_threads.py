"""A crowd of requests to a private API whose database is slow: none is refused for want of a connection."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from sqlalchemy import create_engine, make_url, text

from contract.access import CALLER_KEY_HEADER, Scope
from private_api.keys import create_key
from tests.databases import opened
from tests.running_api import TOKEN, run_private_api
from tests.waiting import wait_until

CROWD = 60
"""More requests than there are threads for them."""
LONGER_S = 4
"""Than a thread waits for a connection."""
PATIENT = "-c lock_timeout=600s -c statement_timeout=600s"


def test_of_a_crowd_that_waits_for_the_database_nobody_is_refused(postgres_url: str, tmp_path: Path) -> None:
    url = make_url(postgres_url).set(query={"options": PATIENT}).render_as_string(hide_password=False)
    with run_private_api(url, tmp_path / "data") as api, opened(postgres_url) as database:
        key = create_key(database, owner="ada", scopes=[Scope.SUBMIT], lifetime=None)
        headers = {"Authorization": f"Bearer {TOKEN}", CALLER_KEY_HEADER: key}
        engine = create_engine(postgres_url)
        with (
            ThreadPoolExecutor(CROWD) as pool,
            httpx.Client(base_url=api.url, headers=headers, timeout=120, trust_env=False) as http,
        ):
            with engine.connect() as holder:
                holder.execute(text("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"))
                answers = [pool.submit(http.get, "/api/models/") for _ in range(CROWD)]
                count = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                with engine.connect() as looker:
                    wait_until(lambda: (looker.scalar(count) or 0) >= 20, "many wait for the lock")
                time.sleep(LONGER_S)
            assert {each.result().status_code for each in answers} == {200}
        engine.dispose()
