"""A model that is kept warm: what the server and the Engine say of its replicas."""

from typing import Any

import httpx

from job_consumer.engines import LABEL
from tests.e2e.systems import System
from tests.engine_client import engine_client

MODEL = "/api/models/warm/deployment"


def replicas(http: httpx.Client, status: str) -> list[dict[str, Any]]:
    """What the server says of those in this status."""
    answer = http.get(MODEL)
    answer.raise_for_status()
    return [replica for replica in answer.json()["replicas"] if replica["status"] == status]


def labelled_containers(system: System, kind: str = "replica") -> list[dict[str, Any]]:
    """The Engine's, in any state, of this consumer's replicas, or of its tasks."""
    client = engine_client()
    try:
        labels = [f"{LABEL}.consumer={system.consumer_name()}", f"{LABEL}.{kind}"]
        found: list[dict[str, Any]] = client.containers(all=True, filters={"label": labels})
        return found
    finally:
        client.close()
