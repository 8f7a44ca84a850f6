"""A consumer's GPU is looked for where the kernel driver shows the host's."""

import logging
from pathlib import Path

import pytest

from job_consumer.gpu_check import GpuMissing, check_gpu
from tests.gpu_host import gpu_host

ONE, TWO, OTHER = (f"GPU-8a2f1c3d-5b6e-4f70-9182-00000000000{n}" for n in (1, 2, 3))
SILENT = "GPU-????????-????-????-????-????????????"
SLICE = "MIG-5c5a1b9e-1d4f-5f43-9ad5-0f2a6c1b7d3e"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("wanted", [ONE, TWO, TWO.lower(), f"MIG-{TWO}/1/0"])
def test_a_gpu_of_the_host_is_found_and_so_is_the_gpu_a_slice_is_named_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: str
) -> None:
    check_gpu(wanted, gpu_host(tmp_path, ONE, TWO))
    assert not caplog.records


def test_a_gpu_that_is_not_there_is_told_with_those_that_are_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GpuMissing) as caught:
        check_gpu(OTHER, gpu_host(tmp_path, ONE, TWO))
    text = str(caught.value)
    assert text.startswith(f"GPU {OTHER} is not on this host, whose driver shows {ONE} (NVIDIA A10G), {TWO} (")
    assert "`inference-server gpus --write compose.gpu.yaml`" in text


def test_a_slice_of_a_gpu_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(GpuMissing):
        check_gpu(f"MIG-{OTHER}/1/0", gpu_host(tmp_path, ONE))


def test_a_slice_is_missing_where_no_gpu_is_cut(tmp_path: Path) -> None:
    with pytest.raises(GpuMissing, match=r"\(NVIDIA A10G\) and no MIG slices; "):
        check_gpu(SLICE, gpu_host(tmp_path, ONE))


def test_a_gpu_that_the_driver_excludes_is_missing(tmp_path: Path) -> None:
    with pytest.raises(GpuMissing, match=f"driver shows {ONE} "):
        check_gpu(TWO, gpu_host(tmp_path, ONE, TWO, excluded={TWO}))


def test_without_a_driver_in_sight_the_consumer_is_warned_once_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_gpu(ONE, tmp_path / "nvidia")
    (line,) = warnings(caplog)
    assert line == f"GPU {ONE} could not be verified: {tmp_path}/nvidia shows no GPU here"


@pytest.mark.parametrize("silent", [SILENT, None])
def test_a_gpu_that_nothing_has_woken_may_be_the_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, silent: str | None
) -> None:
    check_gpu(TWO, gpu_host(tmp_path, ONE, silent))
    (line,) = warnings(caplog)
    assert "does not tell the UUIDs of 1 GPUs" in line


def test_a_slice_cannot_be_told_from_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_gpu(SLICE, gpu_host(tmp_path, ONE, slices=2))
    (line,) = warnings(caplog)
    assert line.endswith("the driver does not tell the UUIDs of MIG slices")


def test_what_cannot_be_read_is_no_proof(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    driver = gpu_host(tmp_path, ONE)
    (driver / "gpus/0000:0f:00.0/information").mkdir(parents=True)
    check_gpu(TWO, driver)
    assert len(warnings(caplog)) == 1
