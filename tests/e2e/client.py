"""A plain client of the HTTP door, for scenarios: no code of the product between the test and the wire."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from tests.e2e.systems import trust
from tests.waiting import START_S, wait_until
from tests.zips import make_zip, read_zip


class DoorClient:
    """The public API as a user meets it."""

    def __init__(self, url: str, http: httpx.Client, verify: str | bool) -> None:
        self.url = url
        self.http = http
        self.verify = verify

    def add_model(self, image: str, *, model_zip: bytes | None = None, **options: Any) -> str:
        """Register an image under a fresh id."""
        model = f"m-{secrets.token_hex(6)}"
        params = {
            "container_tag": image,
            "human_readable_id": model,
            "model_available": str(model_zip is not None).lower(),
            "pull_policy": "never",
            **options,
        }
        files = {"zip_file": model_zip} if model_zip is not None else None
        answer = self.http.post("/api/models/", params=params, files=files)
        assert answer.status_code == 200, answer.text
        return model

    def submit(self, model: str, files: Mapping[str, bytes]) -> str:
        """Submit files; returns the uid."""
        return self.submit_zip(model, make_zip(files))

    def submit_zip(self, model: str, data: bytes, key: str | None = None) -> str:
        """Submit a zip as the raw body."""
        headers = {"Content-Type": "application/zip"} | ({"Idempotency-Key": key} if key else {})
        answer = self.http.post("/api/tasks/", params={"human_readable_id": model}, content=data, headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json())

    def status(self, uid: str) -> dict[str, Any]:
        """The task as JSON."""
        answer = self.http.get(f"/api/tasks/{uid}/status")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def wait_status(self, uid: str, status: str) -> None:
        """Until the task has this status."""
        wait_until(lambda: self.status(uid)["status"] == status, lambda: str(self.status(uid)), within_s=START_S)

    def ended(self, uid: str) -> httpx.Response:
        """The answer of the poll that found the task ended."""
        answers: list[httpx.Response] = []

        def poll() -> bool:
            answers.append(self.http.get(f"/api/tasks/{uid}", params={"wait": 5}))
            return answers[-1].status_code not in (551, 502, 503)

        wait_until(poll, lambda: answers[-1].text, within_s=START_S)
        return answers[-1]

    def result(self, uid: str) -> dict[str, bytes]:
        """The files of the result zip, folders left out."""
        answer = self.ended(uid)
        assert answer.status_code == 200, answer.text
        return read_zip(answer.content)


@contextmanager
def door_of(url: str, verify: str | bool = True) -> Iterator[DoorClient]:
    """A client for the time of a block; `verify` is the certificate to trust, where there is TLS."""
    with httpx.Client(base_url=url, timeout=httpx.Timeout(60), trust_env=False, verify=trust(verify)) as http:
        yield DoorClient(url, http, verify)
