"""When an Engine is asked for GPUs by the Container Device Interface."""

from typing import Any

import pytest

from job_consumer.engines.docker.host import has_gpus_by_cdi

RUNC = {"runc": {}}
FOUND = [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]


@pytest.mark.parametrize(
    ("info", "by_cdi"),
    [
        # Before Engine 25 there is no such thing.
        ({"Runtimes": RUNC}, False),
        ({"Runtimes": RUNC, "CDISpecDirs": []}, False),
        ({"Runtimes": RUNC, "CDISpecDirs": ["/etc/cdi"]}, True),
        ({"Runtimes": RUNC | {"nvidia": {}}, "CDISpecDirs": ["/etc/cdi"]}, False),
        # Newer ones have it on, whether a GPU is described or not.
        ({"Runtimes": RUNC, "CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": None}, False),
        ({"Runtimes": RUNC, "CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": FOUND}, True),
        ({"Runtimes": RUNC | {"nvidia": {}}, "DiscoveredDevices": FOUND}, False),
        ({"Runtimes": RUNC, "DiscoveredDevices": [{"Source": "cdi", "ID": "vendor.com/net=0"}]}, False),
    ],
)
def test_gpus_come_by_cdi_where_there_is_no_runtime_of_nvidia(info: dict[str, Any], by_cdi: bool) -> None:
    assert has_gpus_by_cdi(info) is by_cdi
