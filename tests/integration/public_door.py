"""What the tests of the HTTP door share: a door, a consumer's part, clients that misbehave."""

import socket
import sqlite3
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contract.access import DoorPolicy
from contract.claims import ClaimRequest
from contract.heartbeats import Heartbeat
from contract.private_client import PrivateClient
from contract.schemas import Commit
from contract.statuses import Phase
from kit.http_server import serve_in_thread
from public_api.app import create_app
from tests.zips import make_zip

TOKEN = "a-service-token-of-the-tests"
MIB = 1024**2
UNKNOWN_UID = "0" * 64
DEADLINE_S = 60
# Plain HTTP: without this, each client would load every certificate authority, which takes longer than a call.
PLAIN: dict[str, Any] = {"verify": False, "trust_env": False, "timeout": DEADLINE_S}


@dataclass(frozen=True)
class RunningDoor:
    """An HTTP door, and what lies behind it."""

    url: str
    data_dir: Path
    private_url: str

    @property
    def task_count(self) -> int:
        with sqlite3.connect(self.data_dir / "db") as database:
            (count,) = database.execute("SELECT count(*) FROM tasks").fetchone()
        database.close()
        return int(count)

    @property
    def unfinished_uploads(self) -> list[Path]:
        return list((self.data_dir / "archives" / "tmp").iterdir())


@contextmanager
def serve_door(
    private_url: str,
    *,
    allow_post_model: bool = True,
    require_key: bool = False,
    token: str = TOKEN,
    cors_origins: Sequence[str] = (),
    hosts: Sequence[str] = (),
    behind_proxy: bool = False,
) -> Iterator[str]:
    policy = DoorPolicy(requires_key=require_key, opens_models=allow_post_model)
    app = create_app(
        private_url=private_url,
        service_token=token,
        policy=policy,
        cors_origins=cors_origins,
        hosts=hosts,
        behind_proxy=behind_proxy,
    )
    with serve_in_thread(app, "127.0.0.1", 0, is_door=True) as port:
        yield f"http://127.0.0.1:{port}"


def finish(door: RunningDoor, uid: str, *warnings: str) -> bytes:
    """Run a queued task as a consumer would; returns the output."""
    output = make_zip({"file.txt": f"the output of {uid}{'.' * 1000}".encode()}, method=zipfile.ZIP_STORED)
    with PrivateClient(door.private_url, TOKEN) as consumer:
        assignment = consumer.claim(ClaimRequest(consumer="tests", uid=uid))
        assert assignment is not None
        assert assignment.uid == uid
        consumer.beat(uid, assignment.fence, Heartbeat(consumer="tests", phase=Phase.RUNNING))
        consumer.append_log(uid, assignment.fence, 0, b"a line\n")
        stored = consumer.upload_output(uid, assignment.fence, [output])
        commit = Commit(
            consumer="tests",
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            warnings=list(warnings),
            warning_count=len(warnings),
        )
        consumer.commit(uid, assignment.fence, commit)
    return output


def open_socket(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=DEADLINE_S)


def exchange(url: str, request_line: str) -> bytes:
    """Everything that comes back for a request written by hand: clients would tidy its path up."""
    with open_socket(url) as client:
        client.sendall(f"{request_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received
