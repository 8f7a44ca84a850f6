"""How many processes a gateway starts where nobody says."""

import os

import pytest

from grpc_gateway.settings import GatewaySettings


def load(**variables: str) -> GatewaySettings:
    return GatewaySettings.load({"SERVICE_TOKEN": "a-service-token-of-the-tests", **variables})


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_one_core_is_left_to_control_calls(monkeypatch: pytest.MonkeyPatch, cores: int | None, workers: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert load().workers == workers


def test_a_number_that_is_set_counts() -> None:
    assert load(GRPC_WORKERS="7").workers == 7
