"""What a run gets of what its model asks for."""

from typing import Any

import pytest

from contract.schemas import RunAssignment
from job_consumer.container_spec import Limits, RunLimits, limits_of, limits_of_run
from job_consumer.settings import LimitSettings

MIB = 1024**2
HOST = Limits(512 * MIB, 4.0, 128, 64 * MIB, 32 * MIB, MIB, max_pids=1000)


def given(host: Limits = HOST, **asked: Any) -> RunLimits:
    named = {
        "uid": "ab" * 32,
        "fence": 1,
        "lease_s": 60,
        "human_readable_id": "spleen",
        "model_version": 1,
        "container_tag": "spleen:1",
        "use_gpu": False,
        "pull_policy": "never",
        "isolation": "strict",
        "memory_limit_bytes": None,
        "max_unpacked_bytes": 1,
        "model_archive": None,
    }
    return limits_of_run(RunAssignment.model_validate(named | asked), host)


def test_a_model_that_asks_for_nothing_gets_the_hosts_defaults() -> None:
    # So does every model of a private API of the release before.
    assert given() == RunLimits(512 * MIB, 4.0, 128, True, 64 * MIB, 32 * MIB)


@pytest.mark.parametrize(
    ("parameter", "limit", "values"),
    [
        ("memory_limit_bytes", "memory_bytes", {256 * MIB: 256 * MIB, 1024 * MIB: 512 * MIB}),
        ("shared_memory_bytes", "shared_memory_bytes", {MIB: MIB, 500 * MIB: 500 * MIB, 1024 * MIB: 512 * MIB}),
        ("temporary_bytes", "temporary_bytes", {MIB: MIB, 500 * MIB: 500 * MIB, 1024 * MIB: 512 * MIB}),
        ("pids_limit", "pids", {16: 16, 999: 999, 1001: 1000}),
        ("cpus", "cpus", {0.5: 0.5, 64.0: 4.0}),
    ],
)
def test_a_model_gets_what_it_asks_for_within_what_the_host_allows(
    parameter: str, limit: str, values: dict[float, float]
) -> None:
    assert {asked: getattr(given(**{parameter: asked}), limit) for asked in values} == values


def test_what_counts_as_memory_is_no_more_than_the_memory() -> None:
    run = given(memory_limit_bytes=16 * MIB)
    assert (run.shared_memory_bytes, run.temporary_bytes) == (16 * MIB, 16 * MIB)


def test_a_host_without_a_limit_of_cores_gives_as_many_as_a_model_asks_for() -> None:
    host = limits_of(LimitSettings.load({}))
    assert (given(host).cpus, given(host, cpus=2).cpus) == (None, 2)


def test_no_model_has_fewer_processes_for_asking() -> None:
    host = limits_of(LimitSettings.load({"PIDS_LIMIT": "9000"}))
    assert given(host).pids == given(host, pids_limit=10_000).pids == 9000
    assert not given(host).may_have_more_pids
    assert given(limits_of(LimitSettings.load({})), pids_limit=10_000).pids == 4096
